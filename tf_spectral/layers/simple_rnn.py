"""What the recurrent layers of this library share with `SimpleRNN`.

`FastRNNCell` is their cell, all but its matrix, `FastRNN` their layer, over
the pass through time of `recurrence`.
"""

import functools

from keras import activations
from keras import layers
from keras import ops

from tf_spectral import checks
from tf_spectral.activations import ModReLU
from tf_spectral.activations import get_activation
from tf_spectral.activations import plain_activation
from tf_spectral.activations import pullback_from_output
from tf_spectral.activations import serialize_activation
from tf_spectral.backend.keras_internals import RNNWithOwnMasks
from tf_spectral.checks import real_tensor
from tf_spectral.layers.recurrence import recurrence
from tf_spectral.layers.rnn import FormingCell
from tf_spectral.layers.rnn import RecurrentLayer
from tf_spectral.layers.rnn import of_cell


class FastRNNCell(FormingCell, layers.SimpleRNNCell):
    """Base of the cells `h' = f(x K + b + h R)` with an R of their own.

    A subclass has `build_recurrent()`, which makes the weights of R, `matrix()`
    and `transition(rows)`, R in the form that costs least for that many rows.

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
        output = z + self.formed()(previous)
        if self.activation is not None:
            output = self.activation(output)
        # Keras' own tanh returns float32 for float64 on JAX.
        output = ops.cast(output, self.compute_dtype)
        return output, [output] if nested else output

    def form_matrix(self):
        return self.transition().forward()

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


class FastRNN(RecurrentLayer, RNNWithOwnMasks):
    """Base of the drop-in replacements for `keras.layers.SimpleRNN`.

    It does everything that `SimpleRNN` does. The pass through time is that of
    `recurrence`, or Keras' own loop if `unroll=True` or if the derivative of
    the activation is no known function of its output.

    Args:
        cell: A `FastRNNCell`.
        **kwargs: Arguments of `keras.layers.RNN`.
    """

    stock = layers.SimpleRNN
    own_options = ("trainable_initial_state",)
    untold_options = (*RecurrentLayer.untold_options, "seed")
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

    def inner_loop(self, sequences, initial_state, mask, training=False):
        pullback = self._pullback()
        if pullback is None:
            return super().inner_loop(
                sequences, initial_state, mask, training=training
            )
        x = ops.transpose(sequences, (1, 0, 2))
        if mask is not None:
            mask = ops.transpose(mask[..., 0] if mask.ndim == 3 else mask)
        if self.go_backwards:
            x = ops.flip(x, axis=0)
            mask = None if mask is None else ops.flip(mask, axis=0)
        states = self._states(x, initial_state, mask, training, pullback)
        return self._as_keras(states, mask)

    def _pullback(self):
        """The derivative that the fast pass needs, `None` to do without it."""
        if self.unroll:
            return None
        return pullback_from_output(self._activation())

    def _activation(self):
        # As Keras does: told to be `None` it is the identity.
        return self.cell.activation or activations.linear

    def draw_masks(self, cell, sequence, state):
        if self._pullback() is None:
            return False
        # As Keras does, but without forming the matrix: `_states` does.
        cell.get_dropout_mask(sequence)
        cell.state_mask(state[0])
        return True

    def _states(self, x, initial_state, mask, training, pullback):
        cell = self.cell
        dtype = cell.compute_dtype

        def cast(t):
            return None if t is None else ops.cast(t, dtype)

        input_mask = state_mask = None
        if training:
            input_mask = cell.get_dropout_mask(x[0])
            state_mask = cell.state_mask(initial_state[0])
        if input_mask is not None:
            x = x * input_mask
        length, batch = x.shape[0], x.shape[1]
        rows = length * batch if length and batch else None
        activation = self._activation()
        modrelu = type(activation) is ModReLU
        if type(activation) is layers.LeakyReLU:
            # As a layer it would cast to its own dtype.
            activation = functools.partial(
                activations.leaky_relu,
                negative_slope=activation.negative_slope,
            )
        start = initial_state[0]
        if self.stateful:
            # PyTorch overwrites the state before the backward pass reads it.
            start = ops.copy(start)
        return recurrence(
            cast(x),
            cast(cell.kernel),
            cell.transition(rows),
            cast(start),
            activation,
            pullback,
            bias=cast(cell.bias),
            modrelu_bias=cast(cell.activation.bias) if modrelu else None,
            mask=mask,
            state_mask=cast(state_mask),
            return_sequences=self.return_sequences,
            training=bool(training),
        )

    def _as_keras(self, states, mask):
        """`(last_output, outputs, [state])` with Keras' rules for masks."""
        last = states[-1] if self.return_sequences else states
        if mask is None:
            if not self.return_sequences:
                return last, last[:, None], [last]
            return last, ops.transpose(states, (1, 0, 2)), [last]
        # Before its first unmasked step a sequence has no output: zeros.
        shown = mask
        if not self.zero_output_for_mask:
            shown = ops.cumsum(ops.cast(mask, "int32"), axis=0) > 0
        outputs = states if self.return_sequences else last[None]
        shown = shown if self.return_sequences else shown[-1:]
        outputs = ops.where(shown[..., None], outputs, ops.zeros_like(outputs))
        return outputs[-1], ops.transpose(outputs, (1, 0, 2)), [last]

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        return {**config, **{key: cell[key] for key in self.cell_arguments}}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
