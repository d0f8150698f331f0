"""SpectralGRU and its cell: recurrent matrices of bounded sigma."""

from keras import layers
from keras.saving import register_keras_serializable

from tf_spectral.layers.gated import GatedCell
from tf_spectral.layers.gated import GatedLayer
from tf_spectral.layers.gated import OwnCell


@register_keras_serializable("tf_spectral")
class SpectralGRUCell(GatedCell, layers.GRUCell):
    """Cell of `SpectralGRU`.

    The step is that of `keras.layers.GRUCell`; the recurrent matrix of each
    of its three gates is `V diag(sigma) U^T`, with U and V products of
    Householder reflectors and the singular values in `[sigma_center -
    sigma_radius, sigma_center + sigma_radius]`. In a plain `keras.layers.RNN`
    the matrices are formed once for each sequence.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None` for `n` in U and in V of each gate (its matrix can
            be any within the bounds), an integer for both, or a pair `(m_u,
            m_v)`. Defaults to `None`.
        sigma_center: Non-negative float, the middle of the singular values.
            Defaults to `1.0`.
        sigma_radius: Positive float, smaller than a positive center. Defaults
            to `0.01`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`: see
            `tf_spectral.parametrizations.SVD`. Defaults to `"sigmoid"`.
        activation: Keras activation of the candidate. Defaults to `"tanh"`.
        recurrent_activation: Keras activation of the update and the reset
            gate. Defaults to `"sigmoid"`.
        use_bias: Boolean. Defaults to `True`.
        kernel_initializer: Keras initializer of the `(features, 3 n)` kernel.
            Defaults to `"glorot_uniform"`.
        reflector_initializer: Name of, or a
            `tf_spectral.initializers.ReflectorInitializer`. Defaults to
            `"gaussian"`.
        bias_initializer: Keras initializer of the bias. Defaults to
            `"zeros"`.
        kernel_regularizer: Keras regularizer of the kernel. Defaults to
            `None`.
        recurrent_regularizer: Keras regularizer of each gate's recurrent
            matrix. Defaults to `None`.
        sigma_regularizer: Keras regularizer of each gate's singular values.
            Defaults to `None`.
        annealed_radius: Boolean, whether the radius can change during
            training, see `tf_spectral.callbacks.SigmaRadiusSchedule`.
            Defaults to `False`.
        bias_regularizer: Keras regularizer of the bias. Defaults to `None`.
        kernel_constraint: Keras constraint of the kernel. Defaults to `None`.
        bias_constraint: Keras constraint of the bias. Defaults to `None`.
        dropout: Float in [0, 1], the share of inputs to drop. Defaults to 0.
        recurrent_dropout: Float in [0, 1], the share of states to drop on
            their way to the recurrent matrices. Defaults to 0.
        reset_after: Boolean, whether the reset gate acts after the product
            with the candidate's matrix (with a second bias) and not before.
            Defaults to `True`.
        seed: Integer seed of the dropout. Defaults to `None`.

    Call arguments:
        inputs: Floating or integer tensor `(batch, features)`.
        states: Floating tensor `(batch, units)`, or a list with it.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range or does not apply.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralGRUCell
    >>> rnn = keras.layers.RNN(SpectralGRUCell(8, reflectors=2))
    >>> tuple(rnn(np.random.rand(4, 10, 3).astype("float32")).shape)
    (4, 8)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 5.
    """

    gates = ("update_gate", "reset_gate", "candidate")

    def __init__(
        self,
        units,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        reflector_initializer="gaussian",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        sigma_regularizer=None,
        annealed_radius=False,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        reset_after=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            units,
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            reflector_initializer=reflector_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            sigma_regularizer=sigma_regularizer,
            annealed_radius=annealed_radius,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            reset_after=reset_after,
            seed=seed,
            **kwargs,
        )

    def bias_shape(self, width):
        return (2, width) if self.reset_after else (width,)


@register_keras_serializable("tf_spectral")
class SpectralGRU(GatedLayer, layers.GRU, OwnCell):
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
    decomposed = SpectralGRUCell.gates
