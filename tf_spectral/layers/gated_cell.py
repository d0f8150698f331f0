"""GatedCell: what the spectral LSTM and GRU cells share, all but the step."""

from keras import initializers
from keras import ops

from tf_spectral import checks
from tf_spectral.initializers import get_reflector_initializer
from tf_spectral.parametrizations.svd import SVD

SPECTRAL_OPTIONS = (
    "reflectors",
    "sigma_center",
    "sigma_radius",
    "sigma_mode",
    "reflector_initializer",
    "sigma_regularizer",
    "annealed_radius",
)
# Options of the stock layers that do not apply here.
REFUSED_OPTIONS = ("recurrent_initializer", "recurrent_constraint")


class GatedCell:
    """The recurrent kernel of a stock cell, by one SVD for each gate.

    To be put in front of `keras.layers.LSTMCell` or `GRUCell`, whose step
    reads `recurrent_kernel`. In a `keras.layers.RNN` the kernel is formed
    once for each sequence.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None`, an integer or a pair `(m_u, m_v)`.
        sigma_center: Float.
        sigma_radius: Float.
        sigma_mode: String.
        reflector_initializer: Name or `ReflectorInitializer`.
        recurrent_regularizer: Keras regularizer of each gate's matrix.
        sigma_regularizer: Keras regularizer of each gate's singular values.
        annealed_radius: Boolean, see `SVD`.
        **kwargs: Arguments of the stock cell.

    Attributes:
        gates: Names of the gates, in the order of the kernel's columns. Each
            is also the name of an attribute: the `SVD` of that gate's
            recurrent matrix.
    """

    gates = ()

    def __init__(
        self,
        units,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        reflector_initializer="gaussian",
        recurrent_regularizer=None,
        sigma_regularizer=None,
        annealed_radius=False,
        **kwargs,
    ):
        for name in REFUSED_OPTIONS:
            if name in kwargs:
                raise ValueError(
                    f"Argument `{name}` does not apply to a matrix that is "
                    "kept by its decomposition. Expected "
                    "`reflector_initializer` or the bounds of sigma, "
                    f"Received: {name}={kwargs[name]}"
                )
        units = checks.integer("units", units, minimum=1)
        kwargs = checks.layer_options(kwargs)
        recurrent_regularizer = checks.regularizer(
            "recurrent_regularizer", recurrent_regularizer
        )
        super().__init__(
            units,
            recurrent_initializer=None,
            recurrent_regularizer=recurrent_regularizer,
            **kwargs,
        )
        initializer = get_reflector_initializer(
            reflector_initializer, "reflector_initializer"
        )
        for place, gate in enumerate(self.gates):
            svd = SVD(
                (units, units),
                reflectors=reflectors,
                sigma_center=sigma_center,
                sigma_radius=sigma_radius,
                sigma_mode=sigma_mode,
                reflector_initializer=initializer.for_part(place),
                sigma_regularizer=sigma_regularizer,
                annealed_radius=annealed_radius,
                matrix_regularizer=self.recurrent_regularizer,
                dtype=self.dtype_policy,
                trainable=self.trainable,
                name=gate,
            )
            setattr(self, gate, svd)
        self._formed = self._formed_in = None

    @property
    def recurrent(self):
        """List of the `SVD`s of all gates."""
        return [getattr(self, gate) for gate in self.gates]

    def build(self, input_shape):
        width = len(self.gates) * self.units
        self.kernel = self.add_weight(
            shape=(input_shape[-1], width),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        for svd in self.recurrent:
            # It may have been set since.
            svd.matrix_regularizer = self.recurrent_regularizer
            if not svd.built:
                svd.build()
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=self.bias_shape(width),
                name="bias",
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def bias_shape(self, width):
        """The shape of the bias, for that many columns of the kernel."""
        return (width,)

    def initial_bias(self, shape, dtype=None):
        """The value that the bias starts from."""
        initializer = self.bias_initializer or initializers.Zeros()
        return initializer(shape, dtype=dtype)

    def recurrent_matrix(self):
        """The matrices of all gates: tensor `(units, gates * units)`."""
        return ops.concatenate([svd.matrix() for svd in self.recurrent], axis=1)

    def singular_values(self):
        """Those of each gate's matrix: tensor `(gates, units)`, unordered."""
        return ops.stack([svd.singular_values() for svd in self.recurrent])

    @property
    def recurrent_kernel(self):
        """`recurrent_matrix()` in the compute dtype; what the step reads."""
        if self._is_formed():
            return self._formed
        return ops.cast(self.recurrent_matrix(), self.compute_dtype)

    def call(self, inputs, states, training=False):
        if self._is_formed():
            return super().call(inputs, states, training=training)
        self._form()
        try:
            return super().call(inputs, states, training=training)
        finally:
            self._drop()

    # `keras.layers.RNN` asks for the recurrent dropout mask once before its
    # loop and drops it once after: the times to form the kernel and drop it.
    # If its loop raises, it drops nothing: so the kernel counts only within
    # the outermost call of a layer, or model, that it was formed in.

    def get_recurrent_dropout_mask(self, step_input):
        # The stock steps ask for it as well, within the loop.
        if not self._is_formed():
            self._form()
        return super().get_recurrent_dropout_mask(step_input)

    def reset_recurrent_dropout_mask(self):
        self._drop()
        super().reset_recurrent_dropout_mask()

    def _is_formed(self):
        # Outside of a call Keras would begin one when it is asked.
        formed = self._formed is not None
        return formed and self._formed_in is self._get_call_context()

    def _form(self):
        # Of the kernel's dtype in this call: the layer around may have been
        # given a policy of its own.
        dtype = ops.convert_to_tensor(self.kernel).dtype
        self._formed = ops.cast(self.recurrent_matrix(), dtype)
        self._formed_in = self._get_call_context()

    def _drop(self):
        self._formed = self._formed_in = None

    def get_config(self):
        config = super().get_config()
        svd = self.recurrent[0].get_config()
        return {
            **{k: v for k, v in config.items() if k not in REFUSED_OPTIONS},
            **{key: svd[key] for key in SPECTRAL_OPTIONS},
        }
