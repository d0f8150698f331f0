"""SpectralRNNCell: one step of an RNN whose singular values are bounded."""

from keras import activations
from keras import layers
from keras import ops
from keras.saving import deserialize_keras_object
from keras.saving import register_keras_serializable
from keras.saving import serialize_keras_object

from tf_spectral.layers.modrelu import ModReLU
from tf_spectral.layers.transitions import Dense
from tf_spectral.layers.transitions import DiagonalPlusLowRank
from tf_spectral.layers.transitions import low_rank_pays
from tf_spectral.linalg.checks import check_units
from tf_spectral.parametrizations.svd import SVD

FORMS = ("auto", "dense", "low_rank")


@register_keras_serializable("tf_spectral")
class SpectralRNNCell(layers.SimpleRNNCell):
    """Cell of `SpectralRNN`: `h' = f(x K + b + h R)`.

    The recurrent matrix `R = V diag(sigma) U^T` is kept by its singular value
    decomposition: U and V are products of Householder reflectors and the
    singular values stay in `[sigma_center - sigma_radius, sigma_center +
    sigma_radius]`. In a plain `keras.layers.RNN` the matrix is formed once
    for each sequence.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None` for `n` in U and in V (R can be any matrix within
            the bounds), an integer for both, or a pair `(m_u, m_v)`. Fewer
            are cheaper. Defaults to `None`.
        sigma_center: Non-negative float, the middle of the singular values.
            Defaults to `1.0`.
        sigma_radius: Float between 0 and `sigma_center`. Defaults to `0.01`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`: see
            `tf_spectral.parametrizations.SVD`. Defaults to `"sigmoid"`.
        activation: Name or function of a Keras activation, or `"modrelu"`
            (a trainable `tf_spectral.layers.ModReLU`). Defaults to
            `"leaky_relu"` (negative slope 0.2).
        use_bias: Boolean. Defaults to `True`.
        trainable_initial_state: Boolean, whether the initial state is a
            trained vector and not zero. Defaults to `False`.
        kernel_initializer: Keras initializer of K. Defaults to
            `"glorot_uniform"`.
        reflector_initializer: Name of, or a
            `tf_spectral.initializers.ReflectorInitializer`; its
            `reflector_scale` sets how fast R turns under Adam. Defaults to
            `"gaussian"`.
        bias_initializer: Keras initializer of b. Defaults to `"zeros"`.
        kernel_regularizer: Keras regularizer of K. Defaults to `None`.
        recurrent_regularizer: Keras regularizer of the matrix R. Defaults to
            `None`.
        sigma_regularizer: Keras regularizer of the singular values. Defaults
            to `None`.
        bias_regularizer: Keras regularizer of b. Defaults to `None`.
        kernel_constraint: Keras constraint of K. Defaults to `None`.
        bias_constraint: Keras constraint of b. Defaults to `None`.
        dropout: Float in [0, 1], the share of inputs to drop. Defaults to 0.
        recurrent_dropout: Float in [0, 1], the share of states to drop on
            their way to R. Defaults to 0.
        form: `"dense"` to multiply by R, `"low_rank"` to multiply by the
            equal `diag(sigma) - P Q^T` of rank `m_u + m_v`, `"auto"` for the
            cheaper one. Defaults to `"auto"`.
        seed: Integer seed of the dropout. Defaults to `None`.

    Call arguments:
        sequence: Floating tensor `(batch, features)`.
        states: List of one floating tensor `(batch, units)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> rnn = keras.layers.RNN(SpectralRNNCell(8, reflectors=2))
    >>> rnn(np.random.rand(4, 10, 3).astype("float32")).shape
    TensorShape([4, 8])

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 4.
    """

    def __init__(
        self,
        units,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        activation="leaky_relu",
        use_bias=True,
        trainable_initial_state=False,
        kernel_initializer="glorot_uniform",
        reflector_initializer="gaussian",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        sigma_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        form="auto",
        seed=None,
        **kwargs,
    ):
        check_units(units)
        for name in ("recurrent_initializer", "recurrent_constraint"):
            if name in kwargs:
                raise ValueError(
                    f"Argument `{name}` does not apply to a matrix that is "
                    "kept by its decomposition. Expected "
                    "`reflector_initializer` or the bounds of sigma, "
                    f"Received: {name}={kwargs[name]}"
                )
        if form not in FORMS:
            raise ValueError(
                f"Argument `form` is unknown. Expected one of {FORMS}, "
                f"Received: form={form}"
            )
        super().__init__(
            units,
            activation=None,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )
        self.activation = get_activation(activation, self.dtype_policy)
        self.trainable_initial_state = trainable_initial_state
        self.form = form
        self.recurrent = SVD(
            (units, units),
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            reflector_initializer=reflector_initializer,
            sigma_regularizer=sigma_regularizer,
            matrix_regularizer=recurrent_regularizer,
            dtype=self.dtype_policy,
            name="recurrent",
        )
        self.recurrent_regularizer = self.recurrent.matrix_regularizer
        self._advance = self._advance_of = None

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,),
                name="bias",
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.initial_state = None
        if self.trainable_initial_state:
            self.initial_state = self.add_weight(
                shape=(self.units,), name="initial_state", initializer="zeros"
            )
        if not self.recurrent.built:
            self.recurrent.build()
        activation = self.activation
        if isinstance(activation, layers.Layer) and not activation.built:
            activation.build((None, self.units))
        self.built = True

    def recurrent_matrix(self):
        """The matrix R: tensor `(units, units)`, acting as `h -> h R`."""
        return self.recurrent.matrix()

    def singular_values(self):
        """The singular values of R: tensor `(units,)`, in no order."""
        return self.recurrent.singular_values()

    def transition(self, rows=None):
        """R, cast to the compute dtype, in the form that costs least.

        Args:
            rows: Integer, how many rows will be multiplied (batch times
                time), or `None` for many.

        Returns:
            A `Dense` or a `DiagonalPlusLowRank`.
        """
        low_rank = self.form == "low_rank"
        if self.form == "auto":
            rank = sum(self.recurrent.reflectors)
            low_rank = low_rank_pays(self.units, rank, rows)
        if low_rank:
            tensors = self.recurrent.diagonal_plus_low_rank()
            form = DiagonalPlusLowRank
        else:
            tensors, form = (self.recurrent.matrix(),), Dense
        return form(*(ops.cast(t, self.compute_dtype) for t in tensors))

    def call(self, sequence, states, training=False):
        nested = isinstance(states, (list, tuple))
        previous = states[0] if nested else states
        if training:
            mask = self.get_dropout_mask(sequence)
            sequence = sequence if mask is None else sequence * mask
            mask = self.state_mask(previous)
            previous = previous if mask is None else previous * mask
        z = sequence @ ops.convert_to_tensor(self.kernel)
        if self.bias is not None:
            z = z + self.bias
        output = self.activation(z + self._step_forward()(previous))
        # Keras' own tanh returns float32 for float64 on JAX.
        output = ops.cast(output, self.compute_dtype)
        return output, [output] if nested else output

    # `keras.layers.RNN` asks for the recurrent dropout mask once before its
    # loop and drops it once after: the times to form the matrix and drop it.
    # If its loop raises, it drops nothing: so the matrix counts only within
    # the outermost call of a layer, or model, that it was formed in.

    def _step_forward(self):
        """Multiplies by R: formed for the whole sequence, or for one step."""
        formed = self._advance is not None
        if formed and self._advance_of is self._get_call_context():
            return self._advance
        return self.transition().forward()

    def state_mask(self, state):
        """The recurrent dropout mask; nothing is formed on the way."""
        return super().get_recurrent_dropout_mask(state)

    def get_recurrent_dropout_mask(self, step_input):
        self._advance = self.transition().forward()
        self._advance_of = self._get_call_context()
        return super().get_recurrent_dropout_mask(step_input)

    def reset_recurrent_dropout_mask(self):
        self._advance = self._advance_of = None
        super().reset_recurrent_dropout_mask()

    def get_initial_state(self, batch_size=None):
        if not self.trainable_initial_state:
            return super().get_initial_state(batch_size)
        state = ops.cast(self.initial_state, self.compute_dtype)
        return [ops.tile(state[None], (batch_size, 1))]

    def get_config(self):
        config = super().get_config()
        for key in ("recurrent_initializer", "recurrent_constraint"):
            del config[key]
        svd = self.recurrent.get_config()
        for key in (
            "reflectors",
            "sigma_center",
            "sigma_radius",
            "sigma_mode",
            "reflector_initializer",
            "sigma_regularizer",
        ):
            config[key] = svd[key]
        return {
            **config,
            "activation": serialize_activation(self.activation),
            "trainable_initial_state": self.trainable_initial_state,
            "form": self.form,
        }


def get_activation(identifier, dtype_policy=None):
    """A Keras activation, or a `ModReLU` for `"modrelu"`."""
    if isinstance(identifier, dict):
        return deserialize_keras_object(identifier)
    if identifier == "modrelu":
        return ModReLU(dtype=dtype_policy)
    return activations.get(identifier)


def serialize_activation(activation):
    """What `get_activation` makes the same activation of."""
    if isinstance(activation, layers.Layer):
        return serialize_keras_object(activation)
    return activations.serialize(activation)
