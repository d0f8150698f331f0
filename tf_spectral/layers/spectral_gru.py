"""SpectralGRU: a GRU whose recurrent matrices have bounded sigma."""

from keras import layers
from keras.saving import register_keras_serializable

from tf_spectral.layers.gated_layer import GatedLayer
from tf_spectral.layers.spectral_gru_cell import SpectralGRUCell


@register_keras_serializable("tf_spectral")
class SpectralGRU(GatedLayer, layers.GRU):
    """A GRU whose recurrent matrices have bounded singular values.

    Takes the place of `keras.layers.GRU`: the same equations, the recurrent
    matrix of each of the three gates kept as `V diag(sigma) U^T`, U and V
    products of Householder reflectors and `sigma` within `[sigma_center -
    sigma_radius, sigma_center + sigma_radius]`. The three matrices are formed
    once for each sequence.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None` for `n` in U and in V of each gate, an integer for
            both, or a pair `(m_u, m_v)`. 16 for 128 units is a good start.
            Defaults to `None`.
        sigma_center: Non-negative float. Defaults to `1.0`.
        sigma_radius: Positive float, smaller than a positive center. Defaults
            to `0.01`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`. Defaults to
            `"sigmoid"`.
        activation: Keras activation of the candidate. Defaults to `"tanh"`.
        recurrent_activation: Keras activation of the update and the reset
            gate. Defaults to `"sigmoid"`.
        return_sequences: Boolean, whether to return all outputs and not only
            the last. Defaults to `False`.
        return_state: Boolean, whether to return the last state as well.
            Defaults to `False`.
        go_backwards: Boolean, whether to read (and return) the sequence
            reversed. Defaults to `False`.
        stateful: Boolean, whether a batch goes on from the states of the one
            before. Defaults to `False`.
        unroll: Boolean, whether to unroll the loop. Defaults to `False`.
        use_cudnn: As for `keras.layers.GRU`: `"auto"`, `True` or `False`.
            Defaults to `"auto"`.
        **kwargs: All other arguments of `SpectralGRUCell`
            (`reflector_initializer`, `reset_after`, the regularizers and
            constraints, `annealed_radius`, `use_bias`, `dropout`,
            `recurrent_dropout`, `seed`) and of `keras.layers.GRU`, but for
            `recurrent_initializer` and `recurrent_constraint`.

    Call arguments:
        sequences: Floating or integer tensor `(batch, time, features)`.
        initial_state: Floating tensor `(batch, units)`, or a list with it.
        mask: Boolean tensor `(batch, time)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range or does not apply, and in
            `call` if the sequences are complex or have no step.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralGRU
    >>> layer = SpectralGRU(128, reflectors=16)
    >>> tuple(layer(np.random.rand(4, 20, 1).astype("float32")).shape)
    (4, 128)
    >>> tuple(layer.singular_values().shape)
    (3, 128)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 5.
    """

    cell_class = SpectralGRUCell
    stock = layers.GRU

    @classmethod
    def from_gru(cls, layer, **kwargs):
        """A `SpectralGRU` that computes what a built `GRU` does.

        Args:
            layer: Built `keras.layers.GRU`.
            **kwargs: As for `from_stock`: `reflectors`, `sigma_center`,
                `sigma_radius`, `sigma_mode`, `exact` and other arguments of
                the constructor.

        Raises:
            ValueError: As `from_stock` does.
        """
        return cls.from_stock(layer, **kwargs)

    def to_gru(self):
        """A built `keras.layers.GRU` that computes the same."""
        return self.to_stock()
