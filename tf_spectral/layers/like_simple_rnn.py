"""LikeSimpleRNN: attributes, configuration and conversion of `SimpleRNN`."""

from keras import layers
from keras import ops

from tf_spectral import checks
from tf_spectral.layers.conversion import adds_bias
from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.layers.conversion import check_same_bias
from tf_spectral.layers.conversion import check_untrained
from tf_spectral.layers.conversion import config_of
from tf_spectral.layers.fast_rnn import FastRNN


def of_cell(name):
    """An attribute of a layer that is that of its cell."""
    return property(lambda self: getattr(self.cell, name))


class LikeSimpleRNN(FastRNN):
    """Base of the layers that take the place of `keras.layers.SimpleRNN`.

    Args:
        cell: A `FastRNNCell` with a method `recurrent_matrix`.
        **kwargs: Arguments of `keras.layers.RNN`.
    """

    # The arguments of the constructor that are those of the cell.
    cell_arguments = ()

    def __init__(self, cell, **kwargs):
        super().__init__(cell, **checks.layer_options(kwargs))
        if self.stateful and cell.trainable_initial_state:
            raise ValueError(
                "Argument `trainable_initial_state` cannot be used with "
                "`stateful=True`, where each batch starts from the states of "
                "the one before. Received: trainable_initial_state=True"
            )
        self.input_spec = [layers.InputSpec(ndim=3)]
        # From Keras 3.16 on `RNN` hands on no mask unless it is told to.
        self.supports_masking = True

    units = of_cell("units")
    activation = of_cell("activation")
    use_bias = of_cell("use_bias")
    kernel_initializer = of_cell("kernel_initializer")
    bias_initializer = of_cell("bias_initializer")
    kernel_regularizer = of_cell("kernel_regularizer")
    recurrent_regularizer = of_cell("recurrent_regularizer")
    bias_regularizer = of_cell("bias_regularizer")
    kernel_constraint = of_cell("kernel_constraint")
    bias_constraint = of_cell("bias_constraint")
    dropout = of_cell("dropout")
    recurrent_dropout = of_cell("recurrent_dropout")

    def recurrent_matrix(self):
        """The matrix R: tensor `(units, units)`, acting as `h -> h R`."""
        return self.cell.recurrent_matrix()

    def to_simple_rnn(self):
        """A built `keras.layers.SimpleRNN` that computes the same.

        Raises:
            ValueError: If the layer is not built, or has a part that
                `SimpleRNN` lacks: an activation with weights, such as a
                modReLU, or a trained initial state.
        """
        cell = self.cell
        if not self.built:
            raise ValueError("The layer must be built. Received: built=False")
        check_untrained(self)
        if cell.trainable_initial_state:
            raise ValueError(
                "`SimpleRNN` has no trainable initial state. Expected "
                "trainable_initial_state=False, Received: "
                "trainable_initial_state=True"
            )
        options = layers.SimpleRNN(1).get_config().keys()
        config = {k: v for k, v in self.get_config().items() if k in options}
        # Overwritten below: the default would take a QR decomposition.
        config.setdefault("recurrent_initializer", "zeros")
        config["use_bias"] = adds_bias(self)
        layer = layers.SimpleRNN.from_config(config)
        layer.build(sequences_shape(self))
        bias = [ops.copy(cell.bias)] if layer.use_bias else []
        kernel = ops.copy(cell.kernel)
        layer.set_weights([kernel, ops.copy(self.recurrent_matrix()), *bias])
        carry_trainable(cell.kernel, layer.cell.kernel)
        if layer.use_bias:
            carry_trainable(cell.bias, layer.cell.bias)
        return layer

    @classmethod
    def like(cls, layer, without=(), **changes):
        """A built layer of this class with kernel and bias of a `SimpleRNN`.

        Args:
            layer: Built `keras.layers.SimpleRNN`.
            without: Names of arguments of `layer` to leave out.
            **changes: Arguments in place of those of `layer`.

        Raises:
            ValueError: If the layer is no built `SimpleRNN`, or if only one
                of the two has a bias.
        """
        check_simple_rnn(layer)
        config = config_of(layer)
        for key in without:
            del config[key]
        config["use_bias"] = adds_bias(layer)
        new = cls.from_config({**config, **changes})
        check_same_bias(new, layer)
        new.build(sequences_shape(layer))
        new.cell.kernel.assign(ops.copy(layer.cell.kernel))
        carry_trainable(layer.cell.kernel, new.cell.kernel)
        if new.use_bias:
            new.cell.bias.assign(ops.copy(layer.cell.bias))
            carry_trainable(layer.cell.bias, new.cell.bias)
        return new

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        return {**config, **{key: cell[key] for key in self.cell_arguments}}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def check_simple_rnn(layer):
    """Raises unless it is a built `keras.layers.SimpleRNN`."""
    if not isinstance(layer, layers.SimpleRNN) or not layer.built:
        raise ValueError(
            "Argument `layer` must be a built keras.layers.SimpleRNN. "
            f"Received: layer={layer}"
        )
    check_untrained(layer)


def sequences_shape(layer):
    """The shape to build a copy of a built layer with."""
    batch = layer.states[0].shape[0] if layer.stateful else None
    return batch, None, layer.cell.kernel.shape[0]
