"""SpectralRNN: a recurrent layer whose gradients neither explode nor vanish."""

from keras import layers
from keras.saving import register_keras_serializable

from tf_spectral.layers.fast_rnn import FastRNN
from tf_spectral.layers.modrelu import ModReLU
from tf_spectral.layers.spectral_rnn_cell import SpectralRNNCell


def _of_cell(name):
    return property(lambda self: getattr(self.cell, name))


@register_keras_serializable("tf_spectral")
class SpectralRNN(FastRNN):
    """A simple RNN whose recurrent matrix has bounded singular values.

    Takes the place of `keras.layers.SimpleRNN`: `h_t = f(x_t K + b + h_{t-1}
    R)` with `R = V diag(sigma) U^T`, U and V products of Householder
    reflectors and `sigma` within `[sigma_center - sigma_radius, sigma_center
    + sigma_radius]`. The gradient through `T` steps changes its length by at
    most `(sigma_center + sigma_radius)^T` times what the activation does.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None` for `n` in U and in V, an integer for both, or a
            pair `(m_u, m_v)`. 16 for 128 units is a good start. Defaults to
            `None`.
        sigma_center: Non-negative float. Defaults to `1.0`.
        sigma_radius: Float between 0 and `sigma_center`. Defaults to `0.01`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`. Defaults to
            `"sigmoid"`.
        activation: Keras activation or `"modrelu"`. Defaults to
            `"leaky_relu"`.
        return_sequences: Boolean, whether to return all states and not only
            the last. Defaults to `False`.
        return_state: Boolean, whether to return the last state as well.
            Defaults to `False`.
        go_backwards: Boolean, whether to read (and return) the sequence
            reversed. Defaults to `False`.
        stateful: Boolean, whether a batch goes on from the states of the one
            before. Defaults to `False`.
        unroll: Boolean, whether to unroll Keras' own loop. Defaults to
            `False`; the fast loop is a better choice for all but a few steps.
        **kwargs: All other arguments of `SpectralRNNCell`
            (`kernel_initializer`, `reflector_initializer`, the regularizers
            and constraints, `use_bias`, `trainable_initial_state`, `dropout`,
            `recurrent_dropout`, `form`, `seed`) and of `keras.layers.Layer`.

    Call arguments:
        sequences: Floating tensor `(batch, time, features)`.
        initial_state: List of one floating tensor `(batch, units)`.
        mask: Boolean tensor `(batch, time)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range, and in `call` if the
            sequences are not floating or have no step.

    Example:

    >>> layer = SpectralRNN(128, reflectors=16)
    >>> layer(np.random.rand(32, 784, 1).astype("float32")).shape
    TensorShape([32, 128])
    >>> layer.singular_values().shape
    TensorShape([128])

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
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        **kwargs,
    ):
        cell_options = {
            key: kwargs.pop(key) for key in _CELL_OPTIONS if key in kwargs
        }
        if stateful and cell_options.get("trainable_initial_state"):
            raise ValueError(
                "Argument `trainable_initial_state` cannot be used with "
                "`stateful=True`, where each batch starts from the states of "
                "the one before. Received: trainable_initial_state=True"
            )
        cell = SpectralRNNCell(
            units,
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            activation=activation,
            **cell_options,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="spectral_rnn_cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            **kwargs,
        )
        self.input_spec = [layers.InputSpec(ndim=3)]

    units = _of_cell("units")
    activation = _of_cell("activation")
    use_bias = _of_cell("use_bias")
    kernel_initializer = _of_cell("kernel_initializer")
    bias_initializer = _of_cell("bias_initializer")
    kernel_regularizer = _of_cell("kernel_regularizer")
    recurrent_regularizer = _of_cell("recurrent_regularizer")
    bias_regularizer = _of_cell("bias_regularizer")
    kernel_constraint = _of_cell("kernel_constraint")
    bias_constraint = _of_cell("bias_constraint")
    dropout = _of_cell("dropout")
    recurrent_dropout = _of_cell("recurrent_dropout")

    def recurrent_matrix(self):
        """The matrix R: tensor `(units, units)`, acting as `h -> h R`."""
        return self.cell.recurrent_matrix()

    def singular_values(self):
        """The singular values of R: tensor `(units,)`, in no order."""
        return self.cell.singular_values()

    def to_simple_rnn(self):
        """A built `keras.layers.SimpleRNN` that computes the same.

        Raises:
            ValueError: If the layer is not built, or has a part that
                `SimpleRNN` lacks: a modReLU or a trained initial state.
        """
        cell = self.cell
        if not self.built:
            raise ValueError("The layer must be built. Received: built=False")
        modrelu = isinstance(cell.activation, ModReLU)
        if modrelu or cell.trainable_initial_state:
            raise ValueError(
                "`SimpleRNN` has neither a trainable activation nor a "
                "trainable initial state. Received: activation="
                f"{cell.activation}, trainable_initial_state="
                f"{cell.trainable_initial_state}"
            )
        options = layers.SimpleRNN(1).get_config().keys()
        config = {k: v for k, v in self.get_config().items() if k in options}
        # Overwritten below: the default would take a QR decomposition.
        config["recurrent_initializer"] = "zeros"
        layer = layers.SimpleRNN.from_config(config)
        layer.build(_sequences_shape(self))
        bias = [cell.bias] if cell.use_bias else []
        layer.set_weights([cell.kernel, self.recurrent_matrix(), *bias])
        return layer

    @classmethod
    def from_simple_rnn(
        cls, layer, reflectors=None, sigma_mode="free", **kwargs
    ):
        """A `SpectralRNN` that computes what a built `SimpleRNN` does.

        Args:
            layer: Built `keras.layers.SimpleRNN`.
            reflectors: As for the constructor; `None` reaches any matrix.
            sigma_mode: As for the constructor. Defaults to `"free"`, which
                takes any singular values.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer is no built `SimpleRNN`, if the
                reflectors are too few for its recurrent kernel, or if a
                singular value lies outside of the bounds.
        """
        if not isinstance(layer, layers.SimpleRNN) or not layer.built:
            raise ValueError(
                "Argument `layer` must be a built keras.layers.SimpleRNN. "
                f"Received: layer={layer}"
            )
        config = layer.get_config()
        for key in ("recurrent_initializer", "recurrent_constraint"):
            del config[key]
        config.update(reflectors=reflectors, sigma_mode=sigma_mode, **kwargs)
        new = cls.from_config(config)
        if new.use_bias != layer.use_bias:
            raise ValueError(
                "Argument `use_bias` cannot differ from that of `layer`. "
                f"Expected {layer.use_bias}, Received: use_bias={new.use_bias}"
            )
        new.build(_sequences_shape(layer))
        new.cell.kernel.assign(layer.cell.kernel)
        if layer.use_bias:
            new.cell.bias.assign(layer.cell.bias)
        new.cell.recurrent.assign_matrix(layer.cell.recurrent_kernel)
        return new

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        keys = ("units", *_EXPLICIT, *_CELL_OPTIONS)
        return {**config, **{key: cell[key] for key in keys}}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _sequences_shape(layer):
    """The shape to build a copy of a built layer with."""
    batch = layer.states[0].shape[0] if layer.stateful else None
    return batch, None, layer.cell.kernel.shape[0]


_EXPLICIT = (
    "reflectors",
    "sigma_center",
    "sigma_radius",
    "sigma_mode",
    "activation",
)
_CELL_OPTIONS = (
    "use_bias",
    "trainable_initial_state",
    "kernel_initializer",
    "reflector_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "sigma_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
    "form",
    "seed",
)
