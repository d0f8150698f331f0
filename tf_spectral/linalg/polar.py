"""Polar factor and nuclear norm without singular vectors.

Odd polynomials of a matrix act on its singular values alone; they take only
products of matrices (math 1.2). Any `Q` of spectral norm at most one bounds
the nuclear norm from below by `<x, Q>` (math 1.3): that is what is returned
as nuclear norm, so a step made from both keeps its guarantee.
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import in_full_precision
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_matrices
from tf_spectral.linalg.polar_schedules import SCHEDULES

__all__ = [
    "nuclear_norm",
    "polar_and_nuclear",
    "polar_factor",
]


def polar_factor(x, exact=False, accuracy="high"):
    """The polar factor `A B^T` of a matrix `x = A diag(s) B^T`.

    See `polar_and_nuclear` for arguments, errors and source.

    Returns:
        Tensor of the shape and dtype of `x`, of spectral norm at most one
        (up to 1e-6 in `float32`). Singular values from `1e-3` of the largest
        on become one to 2e-6 at `accuracy="high"`; smaller ones, which
        include those of rounding, become something between zero and one.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.polar import polar_factor
    >>> q = polar_factor([[0.0, -4.0], [3.0, 0.0]])
    >>> keras.ops.convert_to_numpy(keras.ops.round(q)).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    return polar_and_nuclear(x, exact, accuracy)[0]


def nuclear_norm(x, exact=False, accuracy="high"):
    """The sum of the singular values of a matrix, from below.

    See `polar_and_nuclear` for arguments, errors and source.

    Returns:
        Scalar tensor, or one number for each matrix of a stack, `float32` or
        the wider dtype of `x`.

    Example:

    >>> from tf_spectral.linalg.polar import nuclear_norm
    >>> round(float(nuclear_norm([[0.0, -4.0], [3.0, 0.0]])), 4)
    7.0
    """
    return polar_and_nuclear(x, exact, accuracy)[1]


def polar_and_nuclear(x, exact=False, accuracy="high"):
    """Approximate polar factor and the nuclear norm it certifies.

    Args:
        x: Floating tensor `(n_in, n_out)`, or a stack `(..., n_in, n_out)`.
            Zero gives zero; NaN or infinity give a norm that is not finite.
        exact: Boolean, whether to use a singular value decomposition: for
            reference, it is slow under XLA. Defaults to `False`.
        accuracy: `"high"`: six Polar Express steps and a cubic one, for a
            factor that is orthogonal to 2e-6. `"standard"` takes singular
            values from `8e-4` of the scale on to within 0.1% of one,
            `"fast"` those from 0.15 on to 0.96 at least; smaller ones are
            multiplied by what the first of them is. The scale is the largest
            singular value, or more, at most `min(shape)^(1/8)` times it. So
            `nu` is at least 0.99 and 0.85 of the Frobenius norm, and in
            gradients met in practice of the nuclear norm; of one with a long
            tail `"fast"` may see but half. Defaults to `"high"`.

    Returns:
        Tuple `(q, nu)`: `q` of the shape and dtype of `x`, of spectral norm
        at most one (up to 1e-6 in `float32`); `nu = <x, q>` at most the
        nuclear norm, `float32` or the wider dtype of `x`, one for each matrix
        of a stack. Both hold for the `q` that is returned: in half precision
        it is shortened by what rounding may add.

    Raises:
        ValueError: If `x` is not floating or no matrix, or `accuracy` is
            unknown.

    Example:

    >>> from tf_spectral.linalg.polar import polar_and_nuclear
    >>> q, nu = polar_and_nuclear([[0.0, -4.0], [3.0, 0.0]], accuracy="high")
    >>> 6.99 < float(nu) <= 7.0
    True

    Reference: Amsel et al., "The Polar Express", 2025.
    """
    x = check_matrices("x", x)
    accuracy = checks.choice("accuracy", accuracy, SCHEDULES)
    exact = checks.boolean("exact", exact)
    dtype = backend.standardize_dtype(x.dtype)
    x = ops.cast(x, working_dtype(dtype))
    if 0 in x.shape:
        return ops.cast(x, dtype), ops.zeros(x.shape[:-2], x.dtype)
    narrow = dtype if dtype != working_dtype(dtype) else None
    return _computed(x, exact, accuracy, narrow)


@in_full_precision
def _computed(x, exact, accuracy, narrow):
    """Both of matrices of the working dtype; factors in `narrow`, if any."""
    wide = x.shape[-2] < x.shape[-1]
    scale = largest_entry(x, axis=(-2, -1))
    z = scaled_down(transposed(x) if wide else x, scale)
    if exact:
        q, nu = _by_svd(z)
    else:
        q = _factor(z, SCHEDULES[accuracy])
        nu = _inner(z, q) / rounding_margin(z)
    if narrow:
        q = ops.cast(_room_for_rounding(q, narrow), narrow)
        nu = _inner(z, ops.cast(q, z.dtype)) / rounding_margin(z)
    q = transposed(q) if wide else q
    return q, ops.squeeze(scale, (-2, -1)) * nu


def _inner(a, b):
    return ops.sum(a * b, axis=(-2, -1))


def _room_for_rounding(q, dtype):
    """A factor so small that its norm is at most one after a rounding.

    What rounds each entry by a share of it moves the norm by at most that
    share of the Frobenius norm, the root of the rank.
    """
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 2.0**-3)
    return q / (1 + unit * math.sqrt(min(q.shape[-2:])))


def _factor(z, schedule):
    """The approximate factors of tall matrices of entries at most one."""
    if z.shape[-1] == 1:
        return z / safe_divisor(_frobenius(z))
    return _iterate(z, schedule)


def _by_svd(z):
    a, s, bt = ops.svd(z, full_matrices=False)
    eps = (
        2.0**-52
        if backend.standardize_dtype(z.dtype) == "float64"
        else 2.0**-23
    )
    kept = ops.cast(s > s[..., :1] * eps * max(z.shape[-2:]), z.dtype)
    return (a * kept[..., None, :]) @ bt, ops.sum(s, axis=-1)


def rounding_margin(x):
    """A factor above one for what sums over matrices lose by rounding.

    1e-6 (math 1.3, 1.4), and the error of a long sum, which grows like the
    root of its length.
    """
    wide = backend.standardize_dtype(x.dtype) == "float64"
    unit = 2.0**-53 if wide else 2.0**-24
    return 1 + 1e-6 + unit * math.sqrt(math.prod(x.shape[-2:]))


def largest_entry(x, axis=None):
    """`max |x|`, or one where that is zero: a safe divisor of `x`.

    Args:
        x: Tensor.
        axis: Tuple of axes to look along, which are kept, of size one.
            Defaults to `None`: all, for a scalar.
    """
    kept = axis is not None
    return safe_divisor(ops.max(ops.abs(x), axis=axis, keepdims=kept))


def transposed(x):
    """Each matrix of a stack transposed."""
    return ops.swapaxes(x, -2, -1)


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


def _iterates_on_gram(p, n, steps):
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


def _iterate(x, schedule):
    """`x` with all singular values taken to about one, and to at most one.

    Args:
        x: Tensor `(..., p, n)`, `p >= n`, of entries at most one in size.
        schedule: A `Schedule` of `polar_schedules`.

    Returns:
        Tensor `(..., p, n)`.
    """
    runs = []
    for stage in schedule.stages:
        whole = _iterates_on_gram(*x.shape[-2:], len(stage))
        runs += [stage] if whole else [(step,) for step in stage]
    for i, steps in enumerate(runs):
        factor = _stage_factor(x, steps, normalize=i == 0)
        if i + 1 == len(runs) and schedule.peak != 1:
            factor = factor / schedule.peak
        x = x @ factor
    return x


def _stage_factor(x, steps, normalize):
    """The symmetric `(n, n)` matrices that take `x` through some steps."""
    m = transposed(x) @ x
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
    return ops.sqrt(ops.sum(m * m, axis=(-2, -1), keepdims=True))


def _even_part(coefficients, m, square):
    """`a I + b m + c m^2 + d m^3 + e m^4`, in at most two products."""
    a, b, *rest = coefficients
    h = ops.eye(m.shape[-1], dtype=m.dtype) * a + b * m
    if not rest:
        return h
    square = m @ m if square is None else square
    h = h + rest[0] * square
    if len(rest) == 1:
        return h
    return h + square @ (rest[1] * m + rest[2] * square)
