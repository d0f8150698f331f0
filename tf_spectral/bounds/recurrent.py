"""Lipschitz constants of a recurrent network, one for each weight."""

from keras import ops

from tf_spectral import checks
from tf_spectral.bounds.recurrent_checks import OUTPUTS
from tf_spectral.bounds.recurrent_checks import check_tier
from tf_spectral.bounds.recurrent_checks import checked_labels
from tf_spectral.bounds.recurrent_checks import checked_names
from tf_spectral.bounds.recurrent_checks import checked_network
from tf_spectral.bounds.recurrent_checks import checked_size
from tf_spectral.bounds.recurrent_global import global_constants
from tf_spectral.bounds.recurrent_local import BLOCKS
from tf_spectral.bounds.recurrent_network import at_outputs
from tf_spectral.bounds.recurrent_network import average
from tf_spectral.bounds.recurrent_network import run
from tf_spectral.bounds.recurrent_paper import paper_constants
from tf_spectral.bounds.recurrent_tensor import tensor_constants
from tf_spectral.bounds.recurrent_trust import default_radius
from tf_spectral.bounds.recurrent_vector import vector_constants


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
        radius = default_radius(network, x, outputs)
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


def _finite_or_infinite(value):
    """NaN, which comes from `inf * 0` and `inf - inf`, is an overflow."""
    infinite = float("inf") * ops.ones_like(value)
    return ops.where(ops.isfinite(value), value, infinite)
