"""FastRNNCell: what the cells of `FastRNN` share, all but their matrix."""

import contextlib

from keras import activations
from keras import layers
from keras import ops
from keras.saving import deserialize_keras_object
from keras.saving import serialize_keras_object

from tf_spectral import checks
from tf_spectral.layers.inputs import real_tensor
from tf_spectral.layers.modrelu import ModReLU


class FastRNNCell(layers.SimpleRNNCell):
    """Base of the cells `h' = f(x K + b + h R)` with an R of their own.

    A subclass has `build_recurrent()`, which makes the weights of R, and
    `transition(rows)`, R in the form that costs least for that many rows. In
    a plain `keras.layers.RNN` R is formed once for each sequence.

    Args:
        units: Positive integer `n`, the size of the state.
        activation: Name or function of a Keras activation, or `"modrelu"`.
        trainable_initial_state: Boolean, whether the initial state is a
            trained vector and not zero. Defaults to `False`.
        **kwargs: Other arguments of `keras.layers.SimpleRNNCell`.
    """

    def __init__(
        self, units, activation, trainable_initial_state=False, **kwargs
    ):
        units = checks.integer("units", units, minimum=1)
        kwargs = checks.layer_options(kwargs)
        trainable_initial_state = checks.boolean(
            "trainable_initial_state", trainable_initial_state
        )
        super().__init__(units, activation=None, **kwargs)
        self.activation = get_activation(activation, self.dtype_policy)
        self.trainable_initial_state = trainable_initial_state
        self._advance = self._advance_of = None

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.build_recurrent()
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
        activation = self.activation
        if isinstance(activation, layers.Layer) and not activation.built:
            activation.build((None, self.units))
        self.built = True

    def build_recurrent(self):
        """Makes the weights of R."""
        raise NotImplementedError(f"{type(self).__name__}.build_recurrent")

    def transition(self, rows=None):
        """R, cast to the compute dtype, in the form that costs least."""
        raise NotImplementedError(f"{type(self).__name__}.transition")

    def call(self, sequence, states, training=False):
        nested = isinstance(states, (list, tuple))
        previous = states[0] if nested else states
        sequence = real_tensor("sequence", sequence, self.compute_dtype)
        if training:
            mask = self.get_dropout_mask(sequence)
            sequence = sequence if mask is None else sequence * mask
            mask = self.state_mask(previous)
            previous = previous if mask is None else previous * mask
        z = sequence @ ops.convert_to_tensor(self.kernel)
        if self.bias is not None:
            z = z + self.bias
        output = z + self._step_forward()(previous)
        if self.activation is not None:
            output = self.activation(output)
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
        with plain_activation(self):
            config = super().get_config()
        return {
            **config,
            "activation": serialize_activation(self.activation),
            "trainable_initial_state": self.trainable_initial_state,
        }


def get_activation(identifier, dtype_policy=None):
    """A Keras activation, or a `ModReLU` for `"modrelu"`."""
    if isinstance(identifier, str) and identifier == "modrelu":
        return ModReLU(dtype=dtype_policy)
    if isinstance(identifier, dict):
        # Keras' own `get` knows no layers.
        return checks.found(
            "activation", identifier, deserialize_keras_object, "an activation"
        )
    return checks.activation("activation", identifier)


def serialize_activation(activation):
    """What `get_activation` makes the same activation of."""
    if isinstance(activation, layers.Layer):
        return serialize_keras_object(activation)
    return activations.serialize(activation or activations.linear)


@contextlib.contextmanager
def plain_activation(layer):
    """Within it an activation that was set to `None` is the identity.

    Keras' layers take `None` for that in their calls, but make no
    configuration of it.
    """
    if layer.activation is not None:
        yield
        return
    # PyTorch puts no function where a module was.
    del layer.activation
    layer.activation = activations.linear
    try:
        yield
    finally:
        layer.activation = None
