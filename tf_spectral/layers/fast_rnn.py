"""FastRNN: `keras.layers.RNN` over the hand-written pass through time."""

import functools

from keras import activations
from keras import layers
from keras import ops

from tf_spectral.layers.inputs import real_tensor
from tf_spectral.layers.modrelu import ModReLU
from tf_spectral.layers.recurrence import recurrence
from tf_spectral.layers.slopes import pullback_from_output


class FastRNN(layers.RNN):
    """Base of the layers whose cells are `f(x K + b + h R)`.

    The cell has `kernel`, `bias`, `activation` and the dropout masks of
    `keras.layers.SimpleRNNCell`, and a method `transition(rows)` that gives R
    in the form that costs least for that many rows. Everything that
    `keras.layers.SimpleRNN` does, this does; the fast pass is used unless
    `unroll=True` or the derivative of the activation is no known function of
    its output, and Keras' own loop otherwise.
    """

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

    def _maybe_config_dropout_masks(self, cell, input_sequence, input_state):
        if self._pullback() is None:
            super()._maybe_config_dropout_masks(
                cell, input_sequence, input_state
            )
        else:
            # As Keras does, but without forming the matrix: `_states` does.
            cell.get_dropout_mask(input_sequence)
            cell.state_mask(input_state[0])

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


def checked_sequences(sequences, dtype):
    """Sequences of numbers in that dtype; raises where there is no step."""
    sequences = real_tensor("sequences", sequences, dtype)
    if sequences.shape[1] == 0:
        raise ValueError(
            "Argument `sequences` must have at least one time step. Received: "
            f"sequences.shape={tuple(sequences.shape)}"
        )
    return sequences
