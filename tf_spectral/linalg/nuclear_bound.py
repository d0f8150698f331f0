"""An upper bound of the nuclear norm that costs a few thin products.

A gradient whose bound is small needs no polar factor.
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import in_full_precision
from tf_spectral.linalg.checks import check_rank
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.linalg.polar_sketch import signed_sums
from tf_spectral.linalg.polar_steps import largest_entry
from tf_spectral.linalg.polar_steps import rounding_margin
from tf_spectral.linalg.polar_steps import scaled_down

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

    >>> from tf_spectral.linalg.nuclear_bound import nuclear_norm_upper_bound
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
    start = ops.transpose(signed_sums(z, k, seed=0) / scale)
    b, _ = ops.qr(ops.transpose(z) @ (z @ start / scale) / scale)
    c = z @ b / scale
    columns = ops.sum(c * c, axis=0)
    whole = ops.sum(ops.square(z / scale))
    lost = _LOST[backend.standardize_dtype(z.dtype)] * whole
    rest = ops.maximum(whole - ops.sum(columns), 0.0) + lost
    bound = ops.sum(ops.sqrt(columns)) + math.sqrt(n) * ops.sqrt(rest)
    return outer * (scale * bound * rounding_margin(z))
