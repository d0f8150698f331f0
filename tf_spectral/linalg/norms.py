"""Norms of kernels and gradients, and the steps that fit them.

A kernel is measured as a map of rows `x -> x k` from the q-norm to the
q-norm, a gradient in the dual norm (math 4.2, Keras orientation). A bias is a
kernel with one input; a convolution kernel counts as a matrix with one row
for each entry of its window (math 4.5).
"""

import math

import numpy as np
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import in_full_precision
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_rank
from tf_spectral.linalg.polar import largest_entry
from tf_spectral.linalg.polar import polar_and_nuclear
from tf_spectral.linalg.polar import rounding_margin
from tf_spectral.linalg.polar import safe_divisor
from tf_spectral.linalg.polar import scaled_down

__all__ = [
    "as_matrix",
    "dual_norm",
    "duality_map",
    "frobenius_norm",
    "induced_norm",
    "nuclear_norm_upper_bound",
    "spectral_norm_upper_bound",
]


def as_matrix(x):
    """A kernel of any rank as a matrix `(inputs, outputs)`.

    Args:
        x: Tensor. `(out,)` and `()` become one row, `(..., c_in, c_out)`
            becomes `(prod(..., c_in), c_out)`.

    Returns:
        Tensor of rank 2.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.norms import as_matrix
    >>> tuple(as_matrix(keras.ops.ones((3, 3, 4, 8))).shape)
    (36, 8)
    """
    x = checks.tensor("x", x)
    outputs = x.shape[-1] if len(x.shape) else 1
    inputs = 1
    for length in x.shape[:-1]:
        inputs *= length
    return ops.reshape(x, (inputs, outputs))


def frobenius_norm(x):
    """The root of the sum of all squares, safe for tiny and huge entries.

    Args:
        x: Floating tensor of any shape.

    Returns:
        Scalar tensor, `float32` or the wider dtype of `x`.

    Raises:
        ValueError: If `x` is not a floating tensor.

    Example:

    >>> from tf_spectral.linalg.norms import frobenius_norm
    >>> float(frobenius_norm([[3.0, 0.0], [0.0, 4.0]]))
    5.0
    """
    x, _ = _prepared("x", x)
    if 0 in x.shape:
        return ops.zeros((), x.dtype)
    scale = largest_entry(x)
    x = scaled_down(x, scale)
    return scale * ops.sqrt(ops.sum(x * x))


def spectral_norm_upper_bound(kernel, squarings=4):
    """An upper bound of the largest singular value.

    `||k||_2 <= ||(k^T k)^(2^s)||_F^(1 / 2^(s+1))`, at most
    `r^(1 / (4 * 2^s))` times too large, where `r = min(n_in, n_out)`: 9% for
    `r = 300` and four squarings.

    Args:
        kernel: Floating tensor of any rank, see `as_matrix`.
        squarings: Non-negative integer `s`. Each costs one product of
            `(r, r)` matrices and takes the root of the excess. Defaults to
            `4`.

    Returns:
        Scalar tensor, `float32` or the wider dtype of `kernel`; the norm
        itself (up to 1e-6) if `r = 1`.

    Raises:
        ValueError: If `kernel` is not a floating tensor or `squarings` is
            not a non-negative integer.

    Example:

    >>> from tf_spectral.linalg.norms import spectral_norm_upper_bound
    >>> bound = spectral_norm_upper_bound([[3.0, 0.0], [0.0, 1.0]])
    >>> round(float(bound), 3)
    3.0
    """
    squarings = checks.integer("squarings", squarings, minimum=0, maximum=64)
    x, _ = _prepared("kernel", kernel)
    if 0 in x.shape:
        return ops.zeros((), x.dtype)
    if 1 in x.shape:
        return frobenius_norm(x) * rounding_margin(x)
    return _bound_by_squarings(x, squarings)


@in_full_precision
def _bound_by_squarings(x, squarings):
    """The bound of a matrix of the working dtype."""
    rows, columns = x.shape
    margin = rounding_margin(x)
    scale = largest_entry(x)
    x = scaled_down(x, scale)
    x = ops.transpose(x) if rows < columns else x
    power = ops.transpose(x) @ x
    # After s squarings: x^T x to the power 2^s is `power` times bound^2^(s+1).
    bound = ops.ones((), x.dtype)
    for s in range(squarings + 1):
        norm = safe_divisor(ops.sqrt(ops.sum(power * power)))
        bound = bound * norm ** (0.5 ** (s + 1))
        if s < squarings:
            power = power / norm
            power = power @ power
    # The zero matrix left no trace in `bound`.
    return ops.where(ops.any(x != 0), bound * scale * margin, 0 * scale)


def induced_norm(kernel, norm, exact=False):
    """The norm of a kernel as a map of rows from the q-norm to the q-norm.

    Args:
        kernel: Floating tensor of any rank, see `as_matrix`. A bias `(out,)`
            is a kernel with one input: its norm is the q-norm.
        norm: `1` (largest sum of a row), `2` (largest singular value) or
            `"inf"` (largest sum of a column), of absolute values.
        exact: Boolean, whether to compute the largest singular value for
            `norm=2`, by a slow decomposition; else it is a bound from above,
            see `spectral_norm_upper_bound`. Defaults to `False`.

    Returns:
        Scalar tensor, `float32` or the wider dtype of `kernel`.

    Raises:
        ValueError: If `kernel` is not a floating tensor or `norm` is unknown.

    Example:

    >>> from tf_spectral.linalg.norms import induced_norm
    >>> float(induced_norm([[3.0, -4.0, 0.0], [1.0, 1.0, -2.0]], 1))
    7.0

    Reference: Flynn, "The duality structure gradient descent algorithm",
    2017, transposed.
    """
    norm = checks.norm("norm", norm)
    exact = checks.boolean("exact", exact)
    x, _ = _prepared("kernel", kernel)
    if 0 in x.shape:
        return ops.zeros((), x.dtype)
    if norm != 2:
        return ops.max(ops.sum(ops.abs(x), axis=_axis(norm)))
    if exact and min(x.shape) > 1:
        scale = largest_entry(x)
        return scale * ops.max(ops.svd(scaled_down(x, scale), compute_uv=False))
    return frobenius_norm(x) if exact else spectral_norm_upper_bound(x)


def dual_norm(gradient, norm, exact=False, accuracy="high"):
    """The norm of a gradient dual to `induced_norm`: `max <g, k> / ||k||_q`.

    Args:
        gradient: Floating tensor of any rank, see `as_matrix`.
        norm: `1` (sum over rows of the largest entry), `2` (nuclear norm) or
            `"inf"` (sum over columns of the largest entry).
        exact: For `norm=2`, see `polar_and_nuclear`. Defaults to `False`.
        accuracy: For `norm=2`, see `polar_and_nuclear`. Defaults to `"high"`.

    Returns:
        Scalar tensor, `float32` or the wider dtype of `gradient`. For `norm=2`
        at most the norm, see `nuclear_norm`.

    Raises:
        ValueError: If `gradient` is not a floating tensor or another
            argument is unknown.

    Example:

    >>> from tf_spectral.linalg.norms import dual_norm
    >>> float(dual_norm([[3.0, -4.0, 0.0], [1.0, 1.0, -2.0]], "inf"))
    9.0

    Reference: Flynn, 2017, transposed.
    """
    norm = checks.norm("norm", norm)
    x, _ = _prepared("gradient", gradient)
    if norm == 2:
        return polar_and_nuclear(x, exact, accuracy)[1]
    if 0 in x.shape:
        return ops.zeros((), x.dtype)
    return ops.sum(ops.max(ops.abs(x), axis=_axis(norm)))


def duality_map(gradient, norm, exact=False, accuracy="high"):
    """The steepest step: `rho` with `<g, rho> = ||g||*^2`, `||rho|| = ||g||*`.

    Args:
        gradient: Floating tensor of any rank, see `as_matrix`.
        norm: `1` (in every row the largest entry), `2` (polar factor) or
            `"inf"` (in every column the largest entry): the dual norm times
            the signs of those entries. The first of equal ones is taken.
        exact: For `norm=2`, see `polar_and_nuclear`. Defaults to `False`.
        accuracy: For `norm=2`, see `polar_and_nuclear`. Defaults to `"high"`.

    Returns:
        Tensor of the shape and dtype of `gradient`. For `norm=2` the norm and
        the factor are those of `polar_and_nuclear`: `<g, rho> = nu^2` and
        `||rho|| <= nu`, up to 1e-6, for the certified `nu`.

    Raises:
        ValueError: If `gradient` is not a floating tensor or another
            argument is unknown.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.norms import duality_map
    >>> rho = duality_map([[3.0, -4.0, 0.0], [1.0, 1.0, -2.0]], 1)
    >>> keras.ops.convert_to_numpy(rho).tolist()
    [[0.0, -6.0, 0.0], [0.0, 0.0, -6.0]]

    Reference: Flynn, 2017, equations 27 to 29, transposed.
    """
    norm = checks.norm("norm", norm)
    gradient = checks.tensor("gradient", gradient)
    x, dtype = _prepared("gradient", gradient)
    if norm == 2:
        factor, nu = polar_and_nuclear(x, exact, accuracy)
        step = nu * factor
    elif 0 in x.shape:
        step = x
    else:
        size = dual_norm(x, norm) * ops.sign(x)
        step = ops.where(where_largest(x, norm), size, ops.zeros_like(x))
    return ops.cast(ops.reshape(step, gradient.shape), dtype)


def where_largest(x, norm):
    """Where the entries are that a duality map takes.

    Args:
        x: Tensor `(..., n_in, n_out)`.
        norm: `1` (in every row the largest entry) or `"inf"` (in every
            column). The first of equal ones is taken.

    Returns:
        Boolean tensor of the shape of `x`.
    """
    axis = _axis(norm) - 2
    sizes = ops.abs(x)
    first = ops.expand_dims(ops.argmax(sizes, axis=axis), axis)
    places = ops.arange(x.shape[axis], dtype=first.dtype)
    places = places[:, None] if axis == -2 else places
    return places == first


def _axis(norm):
    return 1 if norm == 1 else 0


def _prepared(name, value):
    """A floating tensor as a matrix of the working dtype, and its dtype."""
    value = checks.tensor(name, value)
    value = check_rank(name, value, len(value.shape))
    dtype = backend.standardize_dtype(value.dtype)
    return as_matrix(ops.cast(value, working_dtype(dtype))), dtype


# What float32 may lose of a squared norm: some roundings of each sum.
_LOST = {"float32": 3e-6, "float64": 1e-14}

# Beyond this a matrix is scaled as a whole, at the price of a pass over it.
_LARGE = 1e25


def nuclear_norm_upper_bound(x, directions=16):
    """At least the sum of the singular values of a matrix, and often near.

    With orthonormal columns `b`,
    `||x||_* <= ||x b||_* + ||x - x b b^T||_*`. The first is at most the sum
    of the norms of its columns, the second at most the root of the rank times
    the Frobenius norm. `b` is found by one step of subspace iteration, so the
    bound is near where few directions hold most of `x`.

    Args:
        x: Floating tensor `(n_in, n_out)`.
        directions: Positive integer, the number of columns of `b`. Defaults
            to `16`.

    Returns:
        Scalar tensor, `float32` or the wider dtype of `x`.

    Raises:
        ValueError: If `x` is not a floating matrix, or `directions` not a
            positive integer.

    Example:

    >>> from tf_spectral.linalg.norms import nuclear_norm_upper_bound
    >>> 7.0 <= float(nuclear_norm_upper_bound([[3.0, 0.0], [0.0, 4.0]])) < 7.1
    True

    Reference: Halko, Martinsson and Tropp, "Finding structure with
    randomness", 2011 (subspace iteration); the sum of the roots of the
    diagonal of a Gram matrix bounds that of its eigenvalues by Schur's
    theorem.
    """
    x = check_rank("x", x, 2)
    directions = checks.integer("directions", directions, minimum=1)
    x = ops.cast(x, working_dtype(x.dtype))
    if 0 in x.shape:
        return ops.zeros((), x.dtype)
    return _bound_by_directions(x, directions)


@in_full_precision
def _bound_by_directions(x, directions):
    """The bound of a matrix of the working dtype."""
    z = ops.transpose(x) if x.shape[0] < x.shape[1] else x
    scale, n = largest_entry(z), z.shape[1]
    # Sums of the largest numbers are infinite, and of the least ones nothing.
    extreme = ops.logical_or(scale > _LARGE, scale < 1 / _LARGE)
    outer = ops.where(extreme, scale, ops.ones_like(scale))
    z = ops.cond(extreme, lambda: scaled_down(z, scale), lambda: z)
    scale = ops.where(extreme, ops.ones_like(scale), scale)
    k = min(directions, n)
    # Thin factors are scaled, not the matrix: a pass over it less each.
    start = ops.transpose(_signed_sums(z, k) / scale)
    b, _ = ops.qr(ops.transpose(z) @ (z @ start / scale) / scale)
    c = z @ b / scale
    columns = ops.sum(c * c, axis=0)
    whole = ops.sum(ops.square(z / scale))
    lost = _LOST[backend.standardize_dtype(z.dtype)] * whole
    rest = ops.maximum(whole - ops.sum(columns), 0.0) + lost
    bound = ops.sum(ops.sqrt(columns)) + math.sqrt(n) * ops.sqrt(rest)
    return outer * (scale * bound * rounding_margin(z))


def _signed_sums(x, k):
    """`k` sums of the rows of `x` with random signs, in one pass.

    Clarkson and Woodruff, "Low rank approximation and regression in input
    sparsity time", 2013. The signs are fixed, so that results repeat.
    """
    p, n = x.shape
    k, groups = min(k, p), -(-p // k)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(p, 1))
    dtype = backend.standardize_dtype(x.dtype)
    x = x * ops.convert_to_tensor(signs.astype(dtype))
    x = ops.pad(x, [[0, groups * k - p], [0, 0]])
    return ops.sum(ops.reshape(x, (groups, k, n)), axis=0)
