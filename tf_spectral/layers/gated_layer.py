"""GatedLayer: what the spectral LSTM and GRU share, all but their cells."""

from keras import layers
from keras import ops
from keras import tree

from tf_spectral import checks
from tf_spectral.layers.fast_rnn import checked_sequences
from tf_spectral.layers.gated_cell import REFUSED_OPTIONS
from tf_spectral.layers.gated_cell import SPECTRAL_OPTIONS
from tf_spectral.layers.gated_conversion import GatedConvertible

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
            self._maybe_reset_dropout_masks(self.cell)
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
