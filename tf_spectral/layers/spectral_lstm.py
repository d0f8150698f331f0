"""SpectralLSTM: an LSTM whose recurrent matrices have bounded sigma."""

from keras import layers
from keras.saving import register_keras_serializable

from tf_spectral.layers.gated_layer import GatedLayer
from tf_spectral.layers.spectral_lstm_cell import SpectralLSTMCell


@register_keras_serializable("tf_spectral")
class SpectralLSTM(GatedLayer, layers.LSTM):
    """An LSTM whose recurrent matrices have bounded singular values.

    Takes the place of `keras.layers.LSTM`: the same equations, the recurrent
    matrix of each of the four gates kept as `V diag(sigma) U^T`, U and V
    products of Householder reflectors and `sigma` within `[sigma_center -
    sigma_radius, sigma_center + sigma_radius]`. The four matrices are formed
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
        activation: Keras activation of the candidate and of the output.
            Defaults to `"tanh"`.
        recurrent_activation: Keras activation of the three other gates.
            Defaults to `"sigmoid"`.
        return_sequences: Boolean, whether to return all outputs and not only
            the last. Defaults to `False`.
        return_state: Boolean, whether to return the last state and carry as
            well. Defaults to `False`.
        go_backwards: Boolean, whether to read (and return) the sequence
            reversed. Defaults to `False`.
        stateful: Boolean, whether a batch goes on from the states of the one
            before. Defaults to `False`.
        unroll: Boolean, whether to unroll the loop. Defaults to `False`.
        use_cudnn: As for `keras.layers.LSTM`: `"auto"`, `True` or `False`.
            Defaults to `"auto"`.
        **kwargs: All other arguments of `SpectralLSTMCell`
            (`reflector_initializer`, `unit_forget_bias`, the regularizers and
            constraints, `annealed_radius`, `use_bias`, `dropout`,
            `recurrent_dropout`, `seed`) and of `keras.layers.LSTM`, but for
            `recurrent_initializer` and `recurrent_constraint`.

    Call arguments:
        sequences: Floating or integer tensor `(batch, time, features)`.
        initial_state: List of two floating tensors `(batch, units)`.
        mask: Boolean tensor `(batch, time)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range or does not apply, and in
            `call` if the sequences are complex or have no step.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralLSTM
    >>> layer = SpectralLSTM(128, reflectors=16)
    >>> tuple(layer(np.random.rand(4, 20, 1).astype("float32")).shape)
    (4, 128)
    >>> tuple(layer.singular_values().shape)
    (4, 128)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 5.
    """

    cell_class = SpectralLSTMCell
    stock = layers.LSTM

    @classmethod
    def from_lstm(cls, layer, **kwargs):
        """A `SpectralLSTM` that computes what a built `LSTM` does.

        Args:
            layer: Built `keras.layers.LSTM`.
            **kwargs: As for `from_stock`: `reflectors`, `sigma_center`,
                `sigma_radius`, `sigma_mode`, `exact` and other arguments of
                the constructor.

        Raises:
            ValueError: As `from_stock` does.
        """
        return cls.from_stock(layer, **kwargs)

    def to_lstm(self):
        """A built `keras.layers.LSTM` that computes the same."""
        return self.to_stock()
