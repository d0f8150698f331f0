"""How far a recurrent classifier may be from what it shows in training.

Zhang et al., 2018, Theorem 5 and Corollary 1 (math 2.12), in logarithms: the
quantity grows with the power `2 t` of the spectral norm.
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.checks import check_rank
from tf_spectral.linalg.norms import frobenius_norm
from tf_spectral.linalg.norms import induced_norm


def generalization_bound(
    input_kernel,
    recurrent_kernel,
    output_kernel,
    input_bound,
    steps,
    margin,
    examples,
    confidence=0.95,
    sigma_radius=None,
):
    """The generalization gap of a recurrent classifier, to a constant.

    For a network `h_t = f(x_t K + h_{t-1} R)` with logits `h_t V` at the last
    step. With probability `confidence` over the training set, the error is
    larger than the share of training examples with a margin up to `margin` by
    no more than a constant times

        gap = sqrt((complexity + ln(steps examples / delta)) / examples),
        complexity = input_bound^2 steps^2 n ln(n) / margin^2
            max(||R||, 1)^(2 steps - 2) ||K||^2 ||V||^2
            (steps^2 ||R||_F^2 + (||K||_F/||K||)^2 + (||V||_F/||V||)^2)

    with `delta = 1 - confidence` and `n` the largest of the three widths. The
    constant, which the theorem does not name, is taken as 1: these are
    measures of complexity, to compare networks by and to watch during
    training, and the gap is mostly far above 1.

    The theorem is for ReLU. Its proof uses of the activation that it is
    1-Lipschitz and zero at zero, as tanh and leaky ReLU are. Biases and a
    trained initial state are left out.

    Args:
        input_kernel: Floating tensor `(inputs, units)`, K.
        recurrent_kernel: Floating tensor `(units, units)`, R.
        output_kernel: Floating tensor `(units, classes)`, V.
        input_bound: Positive float, the largest norm of an input `x_t`.
        steps: Positive integer, the length of the sequences.
        margin: Positive float, see above.
        examples: Positive integer, the size of the training set.
        confidence: Float between 0 and 1. Defaults to `0.95`.
        sigma_radius: Non-negative float `r`, for Corollary 1, which holds for
            every R with singular values up to `1 + r` at once: `complexity`
            is then `input_bound^2 steps^4 n^2 ln(n) (1 + r)^(2 steps)
            ||K||^2 ||V||^2 / margin^2`. Defaults to `None`, the singular
            values of `recurrent_kernel`.

    Returns:
        Dict of scalar tensors, `float32` or the wider dtype of the kernels:
        `"log_complexity"`, the natural logarithm of the complexity (`-inf` if
        the logits are constant), `"log_gap"`, that of the gap, and `"gap"`,
        which is infinite where it overflows. For `n < 3`, `ln(12 n)` stands
        for `ln(n)`, which would be 0 for `n = 1`.

    Raises:
        ValueError: If an argument is out of range or of a wrong shape.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import generalization_bound
    >>> k, r, v = keras.ops.ones((1, 4)), keras.ops.eye(4), keras.ops.eye(4)
    >>> bound = generalization_bound(
    ...     k, r, v, input_bound=1.0, steps=100, margin=1.0, examples=10000
    ... )
    >>> round(float(bound["log_complexity"]), 3)
    22.906

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, Theorem 5 and Corollary 1.
    """
    kernels = _checked_kernels(input_kernel, recurrent_kernel, output_kernel)
    steps = checks.integer("steps", steps, minimum=1)
    examples = checks.integer("examples", examples, minimum=1)
    confidence = check_confidence(confidence)
    factor = 2 * (
        math.log(checks.positive("input_bound", input_bound))
        + math.log(steps)
        - math.log(checks.positive("margin", margin))
    )
    if sigma_radius is None:
        log_complexity = factor + _theorem(*kernels, steps)
    else:
        sigma_radius = checks.non_negative("sigma_radius", sigma_radius)
        log_complexity = factor + _corollary(*kernels, steps, sigma_radius)
    log_examples = math.log(examples)
    # The logarithm of 1 / delta is never rounded to zero.
    chance = math.log(steps) + log_examples - math.log1p(-confidence)
    chance = ops.full_like(log_complexity, math.log(chance))
    log_gap = (_log_sum(log_complexity, chance) - log_examples) / 2
    return {
        "log_complexity": log_complexity,
        "log_gap": log_gap,
        "gap": ops.exp(log_gap),
    }


def log_gradient_bound(recurrent_kernel, steps, slope=1.0):
    """The logarithm of a bound of `||d h_t / d h_{t - steps}||_2`.

    It is `steps ln(slope max(sigma))`: how much a gradient can grow on its
    way back through that many steps.

    Args:
        recurrent_kernel: Floating tensor `(units, units)`.
        steps: Positive integer.
        slope: Positive float, the largest slope of the activation. Defaults
            to `1.0`, as for tanh and ReLU.

    Returns:
        Scalar tensor, `float32` or the wider dtype of the kernel.

    Raises:
        ValueError: If an argument is out of range or of a wrong shape.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import log_gradient_bound
    >>> float(log_gradient_bound(keras.ops.eye(3), steps=1000))
    0.0

    Reference: Zhang et al., 2018, section 6.
    """
    recurrent = check_rank("recurrent_kernel", recurrent_kernel, 2)
    _check_units("recurrent_kernel", recurrent, 0, recurrent.shape[1])
    steps = checks.integer("steps", steps, minimum=1)
    size = math.log(checks.positive("slope", slope))
    return steps * (size + ops.log(induced_norm(recurrent, 2, exact=True)))


def _theorem(kernel, recurrent, output, steps):
    """What depends on the kernels, multiplied out: none may divide by 0."""
    log_k, log_v = _log_norms(kernel, output)
    log_k_f, log_r_f, log_v_f = (
        ops.log(frobenius_norm(k)) for k in (kernel, recurrent, output)
    )
    size = induced_norm(recurrent, 2, exact=True)
    growth = (steps - 1) * ops.log(
        ops.where(size > 1, size, ops.ones_like(size))
    )
    recurrent_term = math.log(steps) + log_r_f + log_k + log_v
    squares = _log_sum(
        2 * recurrent_term, 2 * (log_k_f + log_v), 2 * (log_k + log_v_f)
    )
    return _log_width(kernel, output) + 2 * growth + squares


def _corollary(kernel, recurrent, output, steps, radius):
    log_k, log_v = _log_norms(kernel, output)
    log_n = math.log(max(*kernel.shape, *output.shape))
    growth = math.log(steps) + steps * math.log1p(radius)
    return _log_width(kernel, output) + log_n + 2 * (growth + log_k + log_v)


def _log_sum(*logs):
    """`ln(sum(exp(logs)))`; `ops.logaddexp` rounds float64 on JAX."""
    logs = ops.stack(logs)
    top = ops.max(logs)
    top = ops.where(ops.isfinite(top), top, ops.zeros_like(top))
    return top + ops.log(ops.sum(ops.exp(logs - top)))


def _log_norms(*kernels):
    return [ops.log(induced_norm(k, 2, exact=True)) for k in kernels]


def _log_width(kernel, output):
    """The logarithm of `n ln(n)`."""
    n = max(*kernel.shape, *output.shape)
    return math.log(n) + math.log(math.log(n if n >= 3 else 12 * n))


def _checked_kernels(kernel, recurrent, output):
    kernel = check_rank("input_kernel", kernel, 2)
    recurrent = check_rank("recurrent_kernel", recurrent, 2)
    output = check_rank("output_kernel", output, 2)
    units = recurrent.shape[1]
    _check_units("recurrent_kernel", recurrent, 0, units)
    _check_units("input_kernel", kernel, 1, units)
    _check_units("output_kernel", output, 0, units)
    kernels = kernel, recurrent, output
    # `result_type` rounds float64 to float32 on JAX and PyTorch.
    dtypes = [backend.standardize_dtype(k.dtype) for k in kernels]
    dtype = "float64" if "float64" in dtypes else "float32"
    return [ops.cast(k, dtype) for k in kernels]


def _check_units(name, value, axis, units):
    shape = tuple(value.shape)
    if shape[axis] != units or 0 in shape:
        raise ValueError(
            f"Argument `{name}` has the wrong shape. Expected {units} units "
            f"along axis {axis} and no empty axis, "
            f"Received: {name}.shape={shape}"
        )


def check_confidence(confidence):
    """`confidence` as a float: a probability, neither 0 nor 1."""
    return checks.number(
        "confidence",
        confidence,
        above=0.0,
        below=1.0,
        must="be a number between 0 and 1",
    )
