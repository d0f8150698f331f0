"""A simple recurrent network with softmax outputs, run over a batch.

`z_t = x_t K + s_{t-1} R + c`, `s_t = f(z_t)`, logits `o_t = s_t V + b`. All
that changes with time has its axis in front.
"""

from typing import NamedTuple

from keras import ops

from tf_spectral.bounds.recurrent_activations import SmoothActivation
from tf_spectral.bounds.recurrent_time import scan

# Names of the weights, as the public functions give and take them.
WEIGHTS = (
    "input",
    "recurrent",
    "output",
    "bias",
    "initial_state",
    "output_bias",
)


class Network(NamedTuple):
    """The `WEIGHTS` in Keras' orientation, all of one dtype.

    Attributes:
        input: Tensor `(inputs, units)`.
        recurrent: Tensor `(units, units)`.
        output: Tensor `(units, classes)`.
        bias: Tensor `(units,)`.
        output_bias: Tensor `(classes,)`.
        initial_state: Tensor `(batch, units)`.
        activation: `SmoothActivation`.
    """

    input: object
    recurrent: object
    output: object
    bias: object
    output_bias: object
    initial_state: object
    activation: SmoothActivation


class Trace(NamedTuple):
    """What a network does on a batch.

    Attributes:
        x: Tensor `(steps, batch, inputs)`.
        before: Tensor `(steps, batch, units)`, `s_{t-1}`.
        after: Tensor `(steps, batch, units)`, `s_t`.
        slope: Tensor `(steps, batch, units)`, `f'(z_t)`.
        curvature: Tensor `(steps, batch, units)`, `|f''(z_t)|`.
    """

    x: object
    before: object
    after: object
    slope: object
    curvature: object


def run(network, x):
    """The `Trace` of a network.

    Args:
        network: `Network`.
        x: Tensor `(steps, batch, inputs)`.

    Returns:
        `Trace`.
    """
    activation = network.activation

    def step(state, inputs):
        z = inputs + state @ network.recurrent
        return activation.function(z), z

    inputs = rows_times(x, network.input) + network.bias
    z = scan(step, network.initial_state, inputs)
    # Cheaper to compute again than to collect.
    after = activation.function(z)
    before = [network.initial_state[None], after[:-1]]
    return Trace(
        x,
        ops.concatenate(before, axis=0),
        after,
        activation.slope(z, after),
        ops.abs(activation.curvature(z, after)),
    )


def logits(network, states):
    """`s V + b` of states `(..., units)`."""
    return rows_times(states, network.output) + network.output_bias


def rows_times(x, matrix):
    """`x @ matrix` as one product of two matrices, whatever the rank of x."""
    rows = ops.reshape(x, (-1, matrix.shape[0])) @ matrix
    return ops.reshape(rows, (*ops.shape(x)[:-1], matrix.shape[1]))


def euclidean_norm(x):
    """The norm of each row, without the last axis."""
    return ops.sqrt(ops.sum(x * x, axis=-1))


def at_outputs(values, outputs):
    """The steps, along the first axis, that carry loss."""
    return values[-1:] if outputs == "last" else values


def average(values):
    """Means over the first axis, steps, and the last, the batch."""
    # `ops.mean` rounds float64 to float32 on JAX and PyTorch.
    steps, batch = ops.shape(values)[0], ops.shape(values)[-1]
    return ops.sum(values, axis=(0, -1)) / ops.cast(steps * batch, values.dtype)
