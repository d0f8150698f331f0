"""What the spectral LSTM and GRU share: all but the steps of their cells."""

from keras import initializers
from keras import layers
from keras import ops
from keras import tree

from tf_spectral import checks
from tf_spectral.backend.keras_internals import call_in_progress
from tf_spectral.backend.keras_internals import reset_dropout_masks
from tf_spectral.initializers import get_reflector_initializer
from tf_spectral.layers.conversion import bounds_for
from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.layers.conversion import check_stock
from tf_spectral.layers.conversion import check_untrained
from tf_spectral.layers.conversion import sequences_shape
from tf_spectral.layers.simple_rnn import checked_sequences
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.parametrizations.svd import SVD
from tf_spectral.parametrizations.svd import relative_residual

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
        return formed and self._formed_in is call_in_progress(self)

    def _form(self):
        # Of the kernel's dtype in this call: the layer around may have been
        # given a policy of its own.
        dtype = ops.convert_to_tensor(self.kernel).dtype
        self._formed = ops.cast(self.recurrent_matrix(), dtype)
        self._formed_in = call_in_progress(self)

    def _drop(self):
        self._formed = self._formed_in = None

    def get_config(self):
        config = super().get_config()
        svd = self.recurrent[0].get_config()
        return {
            **{k: v for k, v in config.items() if k not in REFUSED_OPTIONS},
            **{key: svd[key] for key in SPECTRAL_OPTIONS},
        }


_CELL_OPTIONS = (
    "use_bias",
    "unit_forget_bias",
    "reset_after",
    "kernel_initializer",
    "reflector_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "sigma_regularizer",
    "annealed_radius",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
    "seed",
    "implementation",
    *REFUSED_OPTIONS,
)


class GatedConvertible:
    """The part of `GatedLayer` that knows the stock layer.

    Attributes:
        stock: The Keras class that a subclass takes the place of.
    """

    stock = None

    @classmethod
    def from_stock(
        cls,
        layer,
        reflectors=None,
        sigma_center=None,
        sigma_radius=None,
        sigma_mode="sigmoid",
        exact=True,
        **kwargs,
    ):
        """A layer of this class that computes what a built stock layer does.

        The recurrent kernel's initializer and constraint have no counterpart
        and are left behind; all other options go over.

        Args:
            layer: Built layer of the class `stock`, and of no subclass of it.
            reflectors: As for the constructor; `None` reaches any kernel.
            sigma_center: As for the constructor. `None` takes the middle of
                the singular values of all gates, or 0 where they come close
                to zero.
            sigma_radius: As for the constructor. `None` takes a tenth more
                than the singular values need, and at least a hundredth of the
                center.
            sigma_mode: As for the constructor. Defaults to `"sigmoid"`.
            exact: Boolean. `False` also takes a kernel that the reflectors or
                the bounds cannot hold: by the fit of `SVD.assign_matrix`.
                What it misses, relative to the recurrent kernel, is then the
                attribute `conversion_residual`. Defaults to `True`.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer cannot be converted, if no radius below
                the given center is wide enough, or if `exact` and the
                reflectors are too few (with the residual) or the bounds too
                narrow (with those that would do) for one of the gates, which
                is named.
        """
        check_stock(layer, cls.stock)
        exact = checks.boolean("exact", exact)
        gates = dict(zip(cls.cell_class.gates, _matrices_of(layer)))
        center, radius = bounds_for(
            gates, reflectors, (sigma_mode, sigma_center, sigma_radius)
        )
        config = layer.get_config()
        new = cls.from_config(
            {
                **{k: config[k] for k in config if k not in REFUSED_OPTIONS},
                "activity_regularizer": layer.activity_regularizer,
                "autocast": layer.autocast,
                "use_cudnn": layer.use_cudnn,
                "reflectors": reflectors,
                "sigma_center": center,
                "sigma_radius": radius,
                "sigma_mode": sigma_mode,
                **kwargs,
            }
        )
        _check_same_bias(new, layer)
        new.build(sequences_shape(layer))
        new.cell.kernel.assign(ops.copy(layer.cell.kernel))
        carry_trainable(layer.cell.kernel, new.cell.kernel)
        if layer.use_bias:
            new.cell.bias.assign(ops.copy(layer.cell.bias))
            carry_trainable(layer.cell.bias, new.cell.bias)
        for name, matrix in gates.items():
            try:
                getattr(new.cell, name).assign_matrix(matrix, exact)
            except ValueError as error:
                raise ValueError(
                    f"The {name} of `layer` cannot be converted. {error}"
                ) from error
            carry_trainable(
                layer.cell.recurrent_kernel, getattr(new.cell, name)
            )
        new.conversion_residual = relative_residual(
            ops.concatenate(list(gates.values()), axis=1),
            new.recurrent_matrix(),
        )
        return new

    def to_stock(self):
        """A built layer of the class `stock` that computes the same.

        Raises:
            ValueError: If the layer is not built, or an activation has
                weights.
        """
        if not self.built:
            raise ValueError("The layer must be built. Received: built=False")
        check_untrained(self)
        config = self.get_config()
        for key in SPECTRAL_OPTIONS:
            del config[key]
        # Overwritten below: the default would take a QR decomposition.
        layer = self.stock.from_config(
            {**config, "recurrent_initializer": "zeros"}
        )
        layer.build(sequences_shape(self))
        cell = self.cell
        bias = [ops.copy(cell.bias)] if cell.use_bias else []
        kernel = ops.copy(cell.kernel)
        layer.set_weights([kernel, self.recurrent_matrix(), *bias])
        carry_trainable(cell.kernel, layer.cell.kernel)
        gate = getattr(cell, cell.gates[0])
        carry_trainable(gate, layer.cell.recurrent_kernel)
        if cell.use_bias:
            carry_trainable(cell.bias, layer.cell.bias)
        return layer


def _check_same_bias(new, layer):
    for name in ("use_bias", "reset_after"):
        given, expected = getattr(new, name, None), getattr(layer, name, None)
        if given != expected:
            raise ValueError(
                f"Argument `{name}` cannot differ from that of `layer`. "
                f"Expected {expected}, Received: {name}={given}"
            )


def _matrices_of(layer):
    kernel = ops.convert_to_tensor(layer.cell.recurrent_kernel)
    kernel = ops.cast(kernel, working_dtype(kernel.dtype))
    return ops.split(kernel, kernel.shape[1] // kernel.shape[0], axis=1)


class GatedLayer(GatedConvertible):
    """A stock recurrent layer over a `GatedCell`.

    To be put in front of `keras.layers.LSTM` or `GRU`, whose pass through
    time, cuDNN's where Keras takes it, reads the kernel of the cell.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None`, an integer or a pair `(m_u, m_v)`.
        sigma_center: Float.
        sigma_radius: Float.
        sigma_mode: String.
        activation: Keras activation.
        recurrent_activation: Keras activation.
        return_sequences: Boolean.
        return_state: Boolean.
        go_backwards: Boolean.
        stateful: Boolean.
        unroll: Boolean.
        use_cudnn: `"auto"` or a boolean.
        **kwargs: Other arguments of the cell and of `keras.layers.RNN`.

    Attributes:
        cell_class: Class of the cell.
        conversion_residual: Float, what `from_stock` missed of the recurrent
            kernel, or `None` for a layer that was not converted.
    """

    cell_class = None

    def __init__(
        self,
        units,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        activation="tanh",
        recurrent_activation="sigmoid",
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        use_cudnn="auto",
        **kwargs,
    ):
        cell_options = {
            key: kwargs.pop(key) for key in _CELL_OPTIONS if key in kwargs
        }
        kwargs = checks.layer_options(
            {
                "return_sequences": return_sequences,
                "return_state": return_state,
                "go_backwards": go_backwards,
                "stateful": stateful,
                "unroll": unroll,
                **kwargs,
            }
        )
        use_cudnn = checks.choice("use_cudnn", use_cudnn, ("auto", True, False))
        cell = self.cell_class(
            units,
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            activation=activation,
            recurrent_activation=recurrent_activation,
            **cell_options,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name=f"spectral_{self.stock.__name__.lower()}_cell",
        )
        # Not the constructor of the stock layer, which makes a cell itself.
        layers.RNN.__init__(
            self,
            cell,
            **kwargs,
        )
        self.input_spec = [layers.InputSpec(ndim=3)]
        # From Keras 3.16 on `RNN` hands on no mask unless it is told to.
        self.supports_masking = True
        self.use_cudnn = use_cudnn
        self.supports_jit = self._stock_supports_jit()
        self.conversion_residual = None

    def call(self, sequences, initial_state=None, mask=None, training=False):
        sequences = checked_sequences(sequences, self.cell.compute_dtype)
        try:
            return super().call(
                sequences,
                initial_state=initial_state,
                mask=mask,
                training=training,
            )
        except Exception:
            # An exception leaves no half-traced tensors behind in the cell.
            reset_dropout_masks(self)
            raise

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if self.stateful:
            # PyTorch overwrites the state before the backward pass reads it.
            initial_state = tree.map_structure(ops.copy, initial_state)
        return super().inner_loop(
            sequences, initial_state, mask, training=training
        )

    def recurrent_matrix(self):
        """The recurrent kernel: tensor `(units, gates * units)`.

        In float32 or float64, the gates in the order of `cell.gates`.
        """
        return self.cell.recurrent_matrix()

    def singular_values(self):
        """Those of each gate's recurrent matrix: tensor `(gates, units)`.

        The rows are in the order of `cell.gates`, each in no order.
        """
        return self.cell.singular_values()

    def _stock_supports_jit(self):
        """False where Keras would run cuDNN, which XLA cannot compile.

        Raises:
            ValueError: If `use_cudnn` is unknown to Keras.
        """
        cell = self.cell
        options = {"name": "probe", "seed": 0}
        if hasattr(cell, "reset_after"):
            options["reset_after"] = cell.reset_after
        probe = self.stock(
            1,
            activation=cell.activation,
            recurrent_activation=cell.recurrent_activation,
            use_bias=cell.use_bias,
            unroll=self.unroll,
            use_cudnn=self.use_cudnn,
            **options,
        )
        return probe.supports_jit

    def get_config(self):
        config = super().get_config()
        cell = self.cell.get_config()
        return {
            **{k: v for k, v in config.items() if k not in REFUSED_OPTIONS},
            **{key: cell[key] for key in SPECTRAL_OPTIONS},
            "use_cudnn": self.use_cudnn,
        }
