"""Lipschitz constants of a recurrent network and what they certify."""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.loops import scan
from tf_spectral.bounds.recurrent_network import OUTPUTS
from tf_spectral.bounds.recurrent_network import WEIGHTS
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_network import check_tier
from tf_spectral.bounds.recurrent_network import checked_labels
from tf_spectral.bounds.recurrent_network import checked_names
from tf_spectral.bounds.recurrent_network import checked_network
from tf_spectral.bounds.recurrent_network import checked_size
from tf_spectral.bounds.recurrent_network import checked_steps
from tf_spectral.bounds.recurrent_network import logits
from tf_spectral.bounds.recurrent_network import rows_times
from tf_spectral.bounds.recurrent_network import run
from tf_spectral.bounds.recurrent_tiers import BLOCKS
from tf_spectral.bounds.recurrent_tiers import Norms
from tf_spectral.bounds.recurrent_tiers import global_constants
from tf_spectral.bounds.recurrent_tiers import largest_gradient
from tf_spectral.bounds.recurrent_tiers import paper_constants
from tf_spectral.bounds.recurrent_tiers import region_constants
from tf_spectral.bounds.recurrent_tiers import tensor_constants
from tf_spectral.bounds.recurrent_tiers import vector_constants

# Each round cuts the range of the logarithm of R by `_POINTS - 1`.
_POINTS = 64
_ROUNDS = {"float32": 5, "float64": 9}
_RANGE = 2.0**60


def rnn_lipschitz_constants(
    input_kernel,
    recurrent_kernel,
    output_kernel,
    x,
    y=None,
    activation="tanh",
    initial_state=None,
    tier="vector",
    bias=None,
    output_bias=None,
    outputs="all",
    radius=None,
    residual=False,
    weights=None,
):
    """Smoothness of the loss of a recurrent network in each of its weights.

    The network is `s_t = f(x_t K + s_{t-1} R + c)` with softmax outputs
    `s_t V + b` and the cross-entropy as loss, averaged over the steps that
    have labels and over the batch. For a step `D` in one weight alone,
    `E(w + D) <= E(w) + <g, D> + L / 2 ||D||^2` in the spectral norm for
    kernels and the Euclidean norm for vectors, so that the step
    `-(1 / L) ||g||_* Q(g)` lowers the loss by `||g||_*^2 / (2 L)`.

    The constants of the output kernel and the output bias hold for steps of
    any size in every tier. For the other weights:

    - `"vector"`: to second order at the given weights, cheap.
    - `"tensor"`: the same, about half as large, for small networks: the cost
      grows with the fourth power of the units, at most 64.
    - `"global"`: for steps of any size; of the recurrent kernel for steps of
      spectral norm up to `radius`. It grows with the cube of the steps or
      faster.
    - `"paper"`: the formulas of the source with two repairs. They are no
      bounds, for comparison only.

    Args:
        input_kernel: Floating tensor `(inputs, units)`, `K`.
        recurrent_kernel: Floating tensor `(units, units)`, `R`.
        output_kernel: Floating tensor `(units, classes)`, `V`.
        x: Tensor `(batch, steps, inputs)`.
        y: Labels, only read if `residual`: probabilities `(batch, steps,
            classes)` or class ids `(batch, steps)`; without the axis of steps
            for `outputs="last"`. Defaults to `None`.
        activation: `"tanh"`, `"sigmoid"`, `"erf"`, `"linear"`,
            `"softplus"`, `"silu"` or `"gelu"`, or the function of that name.
            Defaults to `"tanh"`.
        initial_state: Tensor `(units,)` or `(batch, units)`. Defaults to
            `None`, zeros.
        tier: `"vector"`, `"tensor"`, `"global"` or `"paper"`. Defaults to
            `"vector"`.
        bias: Tensor `(units,)`, `c`. Defaults to `None`, zeros.
        output_bias: Tensor `(classes,)`, `b`, only read if `residual`.
            Defaults to `None`, zeros.
        outputs: `"all"` if every step has labels, `"last"` if the last one.
            Defaults to `"all"`.
        radius: Non-negative number or scalar tensor, for `tier="global"`.
            Defaults to `None`: the best radius for the largest gradient that
            labels could make, which no step `-(1 / L) ||g||_* Q(g)` leaves.
            `rnn_trust_region` finds the best one for a known gradient.
        residual: Boolean, whether a local tier uses the labels: tighter, by a
            half or more where the network fits them. Defaults to `False`.
        weights: Names of the wanted weights among `"input"`, `"recurrent"`,
            `"output"`, `"bias"`, `"initial_state"` and `"output_bias"`: each
            of the local constants costs about as much as a forward pass.
            Defaults to `None`, all.

    Returns:
        Dict from names of weights to scalar tensors of the widest dtype of
        the kernels, `float32` at least. What overflows is infinite, never
        NaN.

    Raises:
        ValueError: If the activation is not smooth, shapes do not fit, labels
            are missing, or an argument is unknown or of another tier.

    Example:

    >>> from tf_spectral.bounds import rnn_lipschitz_constants
    >>> x = [[[1.0], [0.5], [-1.0]]]
    >>> constants = rnn_lipschitz_constants(
    ...     [[0.5]], [[0.8]], [[1.0, -1.0]], x, initial_state=[0.1]
    ... )
    >>> round(float(constants["recurrent"]), 4)
    1.2951

    Reference: Liu, Hsieh and Cevher, "A novel optimization method for
    recurrent neural network by non-Euclidean geometry", equations 7, 22, 32,
    corrected.
    """
    checks.choice("outputs", outputs, OUTPUTS)
    wanted = checked_names(weights)
    network, x = checked_network(
        input_kernel,
        recurrent_kernel,
        output_kernel,
        x,
        activation,
        initial_state,
        bias,
        output_bias,
    )
    classes = network.output.shape[1]
    check_tier(tier, network.recurrent.shape[0], residual, radius)
    labels = checked_labels(y, x, classes, outputs) if residual else None
    if tier == "global" and radius is None:
        radius = _default_radius(network, x, outputs)
    elif tier == "global":
        radius = checked_size("radius", radius, x.dtype)
    trace = run(network, x)
    blocks = [name for name in BLOCKS if name in wanted]
    if not blocks:
        values = []
    elif tier == "vector":
        values = vector_constants(network, trace, blocks, outputs, labels)
    elif tier == "tensor":
        values = tensor_constants(network, trace, blocks, outputs, labels)
    elif tier == "global":
        values = global_constants(network, x, blocks, outputs, radius)
    else:
        values = paper_constants(network, trace, blocks, outputs)
    constants = {name: values[i] for i, name in enumerate(blocks)}
    # The logits are linear in these: exact, and the input of a bias is one.
    squares = ops.sum(trace.after * trace.after, axis=-1)
    constants["output"] = average(at_outputs(squares, outputs))
    constants["output_bias"] = ops.ones_like(constants["output"])
    return {name: _finite_or_infinite(constants[name]) for name in wanted}


def rnn_trust_region(
    input_kernel,
    recurrent_kernel,
    output_kernel,
    x,
    gradient_norm,
    activation="tanh",
    initial_state=None,
    bias=None,
    outputs="all",
):
    """The radius of the best certified step of a recurrent kernel.

    `L_W(R)`, the rigorous constant of the recurrent kernel, holds for steps
    of spectral norm up to `R`. The certified decrease of a step along the
    polar factor of the gradient `G` is largest for the unique root of
    `R = ||G||_* / L_W(R)`. A step `-R Q(G)` lowers the loss by at least
    `R ||G||_* / 2`.

    Args:
        input_kernel: Floating tensor `(inputs, units)`.
        recurrent_kernel: Floating tensor `(units, units)`.
        output_kernel: Floating tensor `(units, classes)`.
        x: Tensor `(batch, steps, inputs)`.
        gradient_norm: Number or scalar tensor: the nuclear norm of the
            gradient of the loss by the recurrent kernel, see
            `linalg.norms.dual_norm`, or less.
        activation: See `rnn_lipschitz_constants`. Defaults to `"tanh"`.
        initial_state: Tensor `(units,)` or `(batch, units)`. Defaults to
            `None`, zeros.
        bias: Tensor `(units,)`. Defaults to `None`, zeros.
        outputs: `"all"` or `"last"`. Defaults to `"all"`.

    Returns:
        Scalar tensor, the radius from below; zero where the constant
        overflows at every radius worth a step.

    Raises:
        ValueError: If an argument is unknown, negative or of a wrong shape.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import rnn_lipschitz_constants
    >>> from tf_spectral.bounds import rnn_trust_region
    >>> one = keras.ops.ones((1, 1))
    >>> x = keras.ops.ones((1, 3, 1))
    >>> radius = rnn_trust_region(one, one, one, x, gradient_norm=0.5)
    >>> constants = rnn_lipschitz_constants(
    ...     one, one, one, x, tier="global", radius=radius
    ... )
    >>> round(float(radius * constants["recurrent"]), 4)
    0.5

    Reference: Liu, Hsieh and Cevher, "A novel optimization method for
    recurrent neural network by non-Euclidean geometry", with a trust region.
    """
    checks.choice("outputs", outputs, OUTPUTS)
    network, x = checked_network(
        input_kernel,
        recurrent_kernel,
        output_kernel,
        x,
        activation,
        initial_state,
        bias,
    )
    size = checked_size("gradient_norm", gradient_norm, x.dtype)
    return _best_radius(Norms(network, x), size, outputs)


def rnn_loss_bound(
    input_kernel,
    recurrent_kernel,
    output_kernel,
    x,
    y,
    steps,
    activation="tanh",
    initial_state=None,
    bias=None,
    output_bias=None,
    outputs="all",
):
    """An upper bound of the loss of a recurrent network after a step.

    With `o_t` the logits, `D_t` their change by the step and `r_t` the part
    of it that is not linear in the step, the mean over time and batch of

        E_t + <grad E_t, step> + max|D_t|^2 / 2 + 2 max|r_t|.

    It holds for steps of any size, in one weight or in several at once. The
    constants of `rnn_lipschitz_constants` bound its last two terms.

    Args:
        input_kernel: Floating tensor `(inputs, units)`.
        recurrent_kernel: Floating tensor `(units, units)`.
        output_kernel: Floating tensor `(units, classes)`.
        x: Tensor `(batch, steps, inputs)`.
        y: Labels: probabilities `(batch, steps, classes)` or class ids
            `(batch, steps)`; without the axis of steps for `outputs="last"`.
        steps: Dict from names of weights to tensors of their shape, what is
            added to them. The names are the keys of
            `rnn_lipschitz_constants`.
        activation: See `rnn_lipschitz_constants`. Defaults to `"tanh"`.
        initial_state: Tensor `(units,)` or `(batch, units)`. Defaults to
            `None`, zeros.
        bias: Tensor `(units,)`. Defaults to `None`, zeros.
        output_bias: Tensor `(classes,)`. Defaults to `None`, zeros.
        outputs: `"all"` or `"last"`. Defaults to `"all"`.

    Returns:
        Scalar tensor. Without steps it is the loss itself.

    Raises:
        ValueError: If an argument is unknown or of a wrong shape.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import rnn_loss_bound
    >>> one = keras.ops.ones((1, 1))
    >>> x, y = keras.ops.ones((1, 3, 1)), keras.ops.zeros((1, 3))
    >>> bound = rnn_loss_bound(one, one, one, x, y, {"input": 0.1 * one})
    >>> bool(bound >= 0)
    True

    Reference: Liu, Hsieh and Cevher, "A novel optimization method for
    recurrent neural network by non-Euclidean geometry", equation 7.
    """
    checks.choice("outputs", outputs, OUTPUTS)
    network, x = checked_network(
        input_kernel,
        recurrent_kernel,
        output_kernel,
        x,
        activation,
        initial_state,
        bias,
        output_bias,
    )
    labels = checked_labels(y, x, network.output.shape[1], outputs)
    move = checked_steps(steps, network)
    trace = run(network, x)
    moved = network._replace(
        **{name: getattr(network, name) + move[name] for name in WEIGHTS}
    )
    o = at_outputs(logits(network, trace.after), outputs)
    change = at_outputs(logits(moved, run(moved, x).after), outputs) - o
    linear = at_outputs(_logit_tangents(network, trace, move), outputs)
    value = ops.logsumexp(o, axis=-1) + ops.sum(
        ops.softmax(o, axis=-1) * linear - labels * (o + linear), axis=-1
    )
    largest = ops.max(ops.abs(change), axis=-1)
    rest = ops.max(ops.abs(change - linear), axis=-1)
    return average(value + largest * largest / 2 + 2 * rest)


def _finite_or_infinite(value):
    """NaN, which comes from `inf * 0` and `inf - inf`, is an overflow."""
    infinite = float("inf") * ops.ones_like(value)
    return ops.where(ops.isfinite(value), value, infinite)


def _default_radius(network, x, outputs):
    """A radius that no certified step leaves, whatever the labels are.

    It is the best radius for the largest gradient that the network can have.
    A smaller gradient divided by `L_W(R)` is a step inside it.
    """
    norms = Norms(network, x)
    return _best_radius(norms, largest_gradient(norms, outputs), outputs)


def _best_radius(norms, size, outputs):
    """The root of `R L_W(R) = size`, from below.

    Bisection, with many points at once: the left side grows with `R`.
    """
    still = region_constants(norms, ops.zeros((1,), size.dtype), outputs)[0]
    grid = ops.linspace(0.0, 1.0, _POINTS, dtype=size.dtype)
    high = size / still
    low = ops.where(ops.isfinite(high), high / _RANGE, ops.zeros_like(high))
    rounds = _ROUNDS[backend.standardize_dtype(size.dtype)]

    def narrow(_, carry):
        low, width = carry
        radii = low * ops.exp(width * grid)
        inside = radii * region_constants(norms, radii, outputs) <= size
        low = ops.max(ops.where(inside, radii, ops.zeros_like(radii)))
        return low, width / (_POINTS - 1)

    width = ops.full_like(low, math.log(_RANGE))
    return ops.fori_loop(0, rounds, narrow, (low, width))[0]


def _logit_tangents(network, trace, move):
    """What a step adds to the logits to first order."""
    own = rows_times(trace.x, move["input"]) + move["bias"]
    own = own + rows_times(trace.before, move["recurrent"])

    def step(tangent, inputs):
        own, slope = inputs
        tangent = slope * (own + tangent @ network.recurrent)
        return tangent, tangent

    start = move["initial_state"] + ops.zeros_like(trace.before[0])
    tangents = scan(step, start, (own, trace.slope))
    through = rows_times(tangents, network.output)
    direct = rows_times(trace.after, move["output"]) + move["output_bias"]
    return through + direct
