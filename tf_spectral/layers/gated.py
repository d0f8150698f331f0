"""What the spectral LSTM and GRU share: all but the steps of their cells."""

from keras import initializers
from keras import layers
from keras import ops
from keras import tree

from tf_spectral import checks
from tf_spectral.initializers import get_reflector_initializer
from tf_spectral.layers.conversion import SPECTRAL_OPTIONS
from tf_spectral.layers.rnn import REFUSED_RECURRENT_OPTIONS
from tf_spectral.layers.rnn import FormingCell
from tf_spectral.layers.rnn import RecurrentLayer
from tf_spectral.layers.rnn import refuse_recurrent_options
from tf_spectral.parametrizations.svd import SVD


class GatedCell(FormingCell):
    """The recurrent kernel of a stock cell, by one SVD for each gate.

    To be put in front of `keras.layers.LSTMCell` or `GRUCell`, whose step
    reads `recurrent_kernel`.

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
        refuse_recurrent_options(kwargs)
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

    @property
    def svds(self):
        """Dict with the `SVD` of each gate."""
        return {gate: getattr(self, gate) for gate in self.gates}

    def build(self, input_shape):
        width = len(self.gates) * self.units
        self.kernel = self.add_weight(
            shape=(input_shape[-1], width),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        for svd in self.svds.values():
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

    def matrix(self):
        """The matrices of all gates: tensor `(units, gates * units)`."""
        matrices = [svd.matrix() for svd in self.svds.values()]
        return ops.concatenate(matrices, axis=1)

    def singular_values(self):
        """Those of each gate's matrix: tensor `(gates, units)`, unordered."""
        values = [svd.singular_values() for svd in self.svds.values()]
        return ops.stack(values)

    @property
    def recurrent_kernel(self):
        """`matrix()` in the dtype of `kernel`; what the step reads."""
        return self.formed()

    def form_matrix(self):
        # Of the kernel's dtype in this call: the layer around may have been
        # given a policy of its own.
        dtype = ops.convert_to_tensor(self.kernel).dtype
        return ops.cast(self.matrix(), dtype)

    def call(self, inputs, states, training=False):
        with self.forming():
            return super().call(inputs, states, training=training)

    def get_config(self):
        config = super().get_config()
        svd = getattr(self, self.gates[0]).get_config()
        for key in REFUSED_RECURRENT_OPTIONS:
            del config[key]
        return {**config, **{key: svd[key] for key in SPECTRAL_OPTIONS}}


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
    *REFUSED_RECURRENT_OPTIONS,
)


class GatedLayer(RecurrentLayer):
    """A stock recurrent layer over a `GatedCell`.

    To be put in front of `keras.layers.LSTM` or `GRU`, whose pass through
    time, cuDNN's where Keras takes it, reads the kernel of the cell; and these
    in front of `OwnCell`.

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
    """

    cell_class = None
    own_options = SPECTRAL_OPTIONS
    refused_options = REFUSED_RECURRENT_OPTIONS
    untold_options = (*RecurrentLayer.untold_options, "use_cudnn")

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
        # What Keras decides by the options of its own cell: whether XLA can
        # compile the layer. The seed is for that cell alone.
        options = {"seed": 0}
        if hasattr(cell, "reset_after"):
            options["reset_after"] = cell.reset_after
        super().__init__(
            cell.units,
            activation=cell.activation,
            recurrent_activation=cell.recurrent_activation,
            use_bias=cell.use_bias,
            use_cudnn=use_cudnn,
            own_cell=cell,
            **options,
            **kwargs,
        )
        # From Keras 3.16 on `RNN` hands on no mask unless it is told to.
        self.supports_masking = True

    @property
    def svds(self):
        """Dict with the `SVD` of each gate's recurrent matrix."""
        return self.cell.svds

    def singular_values(self):
        """Those of each gate's recurrent matrix: tensor `(gates, units)`.

        The rows are in the order of `cell.gates`, each in no order.
        """
        return self.cell.singular_values()

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if self.stateful:
            # PyTorch overwrites the state before the backward pass reads it.
            initial_state = tree.map_structure(ops.copy, initial_state)
        return super().inner_loop(
            sequences, initial_state, mask, training=training
        )

    def get_config(self):
        config = super().get_config()
        for key in REFUSED_RECURRENT_OPTIONS:
            del config[key]
        cell = self.cell.get_config()
        return {
            **config,
            **{key: cell[key] for key in SPECTRAL_OPTIONS},
            "use_cudnn": self.use_cudnn,
        }


class OwnCell(layers.RNN):
    """What a stock layer hands its cell to: takes another in its place.

    Args:
        cell: The cell that the stock layer has made.
        own_cell: The cell to run.
        **kwargs: Other arguments of `keras.layers.RNN`.
    """

    def __init__(self, cell, own_cell, **kwargs):
        super().__init__(own_cell, **kwargs)
