"""The polynomial iteration of a polar factor: products of matrices only."""

import math

from keras import backend
from keras import ops


def rounding_margin(x):
    """A factor above one for what sums over a matrix lose by rounding.

    1e-6 (math 1.3, 1.4), and the error of a long sum, which grows like the
    root of its length.
    """
    wide = backend.standardize_dtype(x.dtype) == "float64"
    unit = 2.0**-53 if wide else 2.0**-24
    return 1 + 1e-6 + unit * math.sqrt(math.prod(x.shape))


def largest_entry(x):
    """`max |x|`, or one where that is zero: a safe divisor of `x`."""
    return safe_divisor(ops.max(ops.abs(x)))


def scaled_down(x, scale):
    """`x / scale`, also where `1 / scale` is too small for a float.

    XLA divides by multiplying with the reciprocal, which is nothing beyond
    8e37, and graphs join factors, so that two roots of it are no help. A
    power of two takes both to where neither matters, without rounding.
    """
    one = ops.ones_like(scale)
    step = ops.where(scale < 2.0**-40, 2.0**60 * one, one)
    step = ops.where(scale > 2.0**40, 2.0**-60 * one, step)
    return (x * step) / (scale * step)


def safe_divisor(norm):
    """`norm`, or one where it is zero; NaN stays."""
    return ops.where(norm == 0, ops.ones_like(norm), norm)


def iterates_on_gram(p, n, steps):
    """Whether a stage of some steps is cheaper on its `(n, n)` Gram matrix.

    Per step after the first, `x` itself takes its Gram matrix and its update,
    `4 p n^2` flops; the Gram matrix takes two products for its own update and
    one to accumulate the factor, `6 n^3`. All else is the same.

    Args:
        p: Integer, the longer side of the matrix.
        n: Integer, the shorter side.
        steps: Integer, the number of steps in the stage.

    Returns:
        Boolean.
    """
    return steps > 1 and 2 * p > 3 * n


def iterate(x, schedule):
    """`x` with all singular values taken to about one, and to at most one.

    Args:
        x: Tensor `(p, n)`, `p >= n`, of entries at most one in size.
        schedule: A `Schedule` of `polar_schedules`.

    Returns:
        Tensor `(p, n)`.
    """
    runs = []
    for stage in schedule.stages:
        whole = iterates_on_gram(*x.shape, len(stage))
        runs += [stage] if whole else [(step,) for step in stage]
    for i, steps in enumerate(runs):
        factor = _stage_factor(x, steps, normalize=i == 0)
        if i + 1 == len(runs) and schedule.peak != 1:
            factor = factor / schedule.peak
        x = x @ factor
    return x


def _stage_factor(x, steps, normalize):
    """The symmetric `(n, n)` matrix that takes `x` through some steps."""
    m = ops.transpose(x) @ x
    scale, square, factor = None, None, None
    if normalize:
        m, square, scale = _normalized(m)
    for i, step in enumerate(steps):
        h = _even_part(step.coefficients, m, square)
        square = None
        factor = h if factor is None else factor @ h
        if i + 1 < len(steps):
            m = (m @ h) @ h
    return factor if scale is None else factor / scale


def _normalized(m):
    """The Gram matrix for a spectral norm of about one, never above.

    `||x||_2 <= ||(x^T x)^2||_F^(1/4)`, at most 18% too much for a Gaussian
    `x` (math 1.4); the square is one the first step needs anyway.
    """
    size = safe_divisor(_frobenius(m))
    m = m / size
    square = m @ m
    norm = safe_divisor(_frobenius(square))
    root = ops.sqrt(norm)
    return m / root, square / norm, ops.sqrt(size * root)


def _frobenius(m):
    return ops.sqrt(ops.sum(m * m))


def _even_part(coefficients, m, square):
    """`a I + b m + c m^2 + d m^3 + e m^4`, in at most two products."""
    a, b, *rest = coefficients
    h = ops.eye(m.shape[0], dtype=m.dtype) * a + b * m
    if not rest:
        return h
    square = m @ m if square is None else square
    h = h + rest[0] * square
    if len(rest) == 1:
        return h
    return h + square @ (rest[1] * m + rest[2] * square)
