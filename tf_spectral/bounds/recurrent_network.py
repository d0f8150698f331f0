"""A simple recurrent network with softmax outputs, run over a batch.

`z_t = x_t K + s_{t-1} R + c`, `s_t = f(z_t)`, logits `o_t = s_t V + b`. All
that changes with time has its axis in front.
"""

from typing import NamedTuple

import numpy as np
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.activations import SmoothActivation
from tf_spectral.activations import smooth_activation
from tf_spectral.backend.loops import scan
from tf_spectral.checks import check_rank

TIERS = ("vector", "tensor", "global", "paper")
OUTPUTS = ("all", "last")
_MAX_TENSOR_UNITS = 64
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


def checked_network(
    input_kernel,
    recurrent_kernel,
    output_kernel,
    x,
    activation="tanh",
    initial_state=None,
    bias=None,
    output_bias=None,
):
    """The `Network` of arguments that fit, and `x` with time in front."""
    activation = smooth_activation(activation)
    kernels = {
        "input_kernel": input_kernel,
        "recurrent_kernel": recurrent_kernel,
        "output_kernel": output_kernel,
    }
    kernels = {name: check_rank(name, k, 2) for name, k in kernels.items()}
    kernel, recurrent, output = kernels.values()
    units = recurrent.shape[0]
    checks.tensor_shape("recurrent_kernel", recurrent, (units, units))
    checks.tensor_shape("input_kernel", kernel, (None, units))
    checks.tensor_shape("output_kernel", output, (units, None))
    # `result_type` rounds float64 to float32 on JAX and PyTorch.
    dtypes = [backend.standardize_dtype(k.dtype) for k in kernels.values()]
    dtype = "float64" if "float64" in dtypes else "float32"
    x = checks.tensor("x", x)
    checks.tensor_shape("x", x, (None, None, kernel.shape[0]))
    if 0 in x.shape:
        raise ValueError(
            "Argument `x` must have a sequence, a step and an input. "
            f"Received: x.shape={tuple(x.shape)}"
        )
    network = Network(
        *[ops.cast(k, dtype) for k in kernels.values()],
        _vector("bias", bias, units, dtype),
        _vector("output_bias", output_bias, output.shape[1], dtype),
        _states(initial_state, x, units, dtype),
        activation,
    )
    return network, ops.transpose(ops.cast(x, dtype), (1, 0, 2))


def check_tier(tier, units, residual, radius):
    """Raises unless the tier is known and takes the other arguments."""
    checks.choice("tier", tier, TIERS)
    checks.boolean("residual", residual)
    if tier in ("tensor", "paper") and units > _MAX_TENSOR_UNITS:
        raise ValueError(
            f"Argument `tier` asks for tensors of {units} units: their cost "
            "grows with the fourth power of the units. Expected at most "
            f"{_MAX_TENSOR_UNITS} units, or tier='vector', Received: "
            f"tier={tier!r}"
        )
    if residual and tier not in ("vector", "tensor"):
        raise ValueError(
            "Argument `residual` belongs to the local tiers. Expected "
            f"tier='vector' or 'tensor', Received: tier={tier!r}"
        )
    if radius is not None and tier != "global":
        raise ValueError(
            "Argument `radius` belongs to the rigorous bound. Expected "
            f"tier='global', Received: radius={radius}, tier={tier!r}"
        )


def checked_size(name, value, dtype):
    """A non-negative number as a scalar tensor."""
    if isinstance(value, (int, float, np.number)):
        value = checks.non_negative(name, value)
        value = ops.convert_to_tensor(value, dtype)
    value = ops.cast(checks.tensor(name, value), dtype)
    checks.tensor_shape(name, value, ())
    return value


def checked_labels(y, x, classes, outputs):
    """Labels as probabilities `(steps or 1, batch, classes)`.

    `x` has time in front.
    """
    if y is None:
        raise ValueError(
            "Argument `y` is missing: the residual needs labels. Expected "
            "probabilities or class ids, Received: y=None"
        )
    y = checks.tensor("y", y)
    steps = x.shape[1:2] if outputs == "last" else (x.shape[1], x.shape[0])
    if len(y.shape) == len(steps):
        checks.tensor_shape("y", y, steps)
        y = ops.one_hot(ops.cast(y, "int32"), classes, dtype=x.dtype)
    else:
        checks.tensor_shape("y", y, (*steps, classes))
    y = ops.cast(y, x.dtype)
    return y[None] if outputs == "last" else ops.transpose(y, (1, 0, 2))


def checked_names(weights):
    """The wanted weights in the order of `WEIGHTS`; `None` is all."""
    listed = isinstance(weights, (list, tuple, set, frozenset))
    names = WEIGHTS if weights is None else tuple(weights) if listed else ()
    if not names or not all(
        isinstance(name, str) and name in WEIGHTS for name in names
    ):
        raise ValueError(
            "Argument `weights` must be names of weights. Expected some of "
            f"{WEIGHTS}, Received: weights={weights!r}"
        )
    return [name for name in WEIGHTS if name in names]


def checked_steps(steps, network):
    """Steps of all weights, zeros where none is given."""
    checks.instance("steps", steps, dict, "a dictionary of steps by name")
    unknown = set(steps) - set(WEIGHTS)
    if unknown:
        raise ValueError(
            "Argument `steps` names unknown weights. Expected names among "
            f"{WEIGHTS}, Received: steps with {sorted(map(str, unknown))}"
        )
    moves = {}
    for name in WEIGHTS:
        weight = getattr(network, name)
        moves[name] = ops.zeros_like(weight)
        if name in steps:
            move = checks.tensor(f"steps[{name!r}]", steps[name])
            shape = tuple(weight.shape)
            if name == "initial_state" and len(move.shape) == 1:
                shape = shape[1:]
            checks.tensor_shape(f"steps[{name!r}]", move, shape)
            moves[name] = moves[name] + ops.cast(move, weight.dtype)
    return moves


def _vector(name, value, length, dtype):
    if value is None:
        return ops.zeros((length,), dtype)
    value = checks.tensor(name, value)
    checks.tensor_shape(name, value, (length,))
    return ops.cast(value, dtype)


def _states(initial_state, x, units, dtype):
    zeros = ops.zeros((ops.shape(x)[0], units), dtype)
    if initial_state is None:
        return zeros
    state = checks.tensor("initial_state", initial_state)
    if len(state.shape) == 1:
        checks.tensor_shape("initial_state", state, (units,))
    else:
        checks.tensor_shape("initial_state", state, (x.shape[0], units))
    return zeros + ops.cast(state, dtype)
