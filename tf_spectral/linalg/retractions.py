"""Retractions: from a point and a tangent vector to a point again.

All follow the tangent vector to first order. A square kernel `r` is rotated
from the left, `r <- R(a) r` with `a` skew: the transpose of the papers'
`W <- W R(-a)`. Where it can, a step adds a small change to `r`: the change
takes the rounding, and drift grows like that of plane rotations.
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_alike
from tf_spectral.checks import check_rank
from tf_spectral.linalg.exponential import cayley
from tf_spectral.linalg.exponential import cayley_increment
from tf_spectral.linalg.exponential import expm
from tf_spectral.linalg.exponential import exponential_increment
from tf_spectral.linalg.exponential import prepare_square
from tf_spectral.linalg.norms import spectral_norm_upper_bound
from tf_spectral.linalg.orthogonal import nearest_orthogonal
from tf_spectral.linalg.polar import scaled_down

__all__ = [
    "METHODS",
    "cayley",
    "expm",
    "retract",
    "retract_skew",
    "shortened",
]

METHODS = ("expm", "cayley", "qr", "polar")


def shortened(step, longest=math.pi):
    """A step no longer than half a turn.

    A rotation by more than pi has been all around: its angle is one of
    rounding, and a step of `1e12` loses all digits of the rest.

    Args:
        step: Floating tensor `(p, n)`, a skew matrix or a tangent vector.
        longest: Positive float, the largest spectral norm. Defaults to pi.

    Returns:
        Tensor of the shape and dtype of `step`: itself, or a multiple of
        spectral norm `longest` or a little less.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.retractions import shortened
    >>> a = shortened([[0.0, 1e12], [-1e12, 0.0]])
    >>> 3.0 < float(keras.ops.max(a)) <= 3.1416
    True
    """
    step = check_rank("step", step, 2)
    longest = checks.positive("longest", longest)
    if 0 in step.shape:
        return step
    scale = ops.maximum(ops.max(ops.abs(step)), ops.ones((), step.dtype))
    unit = scaled_down(step, scale)
    # Half precision would round the sum of squares to nothing.
    unit = ops.cast(unit, working_dtype(step.dtype))
    size = ops.sqrt(ops.sum(unit * unit))
    whole = ops.cast(scale, unit.dtype)

    def measured():
        norm = spectral_norm_upper_bound(unit)
        # Not the product of both, which may overflow.
        share = ops.minimum(longest / norm, whole)
        return ops.cast(unit * share, step.dtype)

    return ops.cond(size * whole <= longest, lambda: step, measured)


def retract_skew(r, a, method="expm"):
    """A square orthogonal matrix, rotated by a skew matrix.

    A gradient step of length `rate` is `a = rate / 2 * skew_gradient(r, g)`.

    | `method` | result | agrees with `expm` to | also removes drift |
    |---|---|---|---|
    | `"expm"` | `expm(a) r` | | |
    | `"cayley"` | `(I - a/2)^-1 (I + a/2) r` | second order | |
    | `"polar"` | polar factor of `(I + a) r` | second order | yes |
    | `"qr"` | `Q` of `(I + a) r` on rows, `R_ii > 0` | first order | yes |

    Args:
        r: Floating orthogonal tensor `(d, d)`.
        a: Floating skew tensor `(d, d)`.
        method: One of `METHODS`. Defaults to `"expm"`.

    Returns:
        Tensor of the shape and dtype of `r`, with the determinant of `r`.
        Differentiable once; half precision is computed in `float32`.

    Raises:
        ValueError: If an argument is not a square floating matrix, if their
            shapes differ, or if `method` is unknown.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.retractions import retract_skew
    >>> r = retract_skew([[1.0, 0.0], [0.0, 1.0]], [[0.0, -2.0], [2.0, 0.0]],
    ...                  method="cayley")
    >>> keras.ops.convert_to_numpy(r).tolist()
    [[0.0, -1.0], [1.0, 0.0]]

    Reference: Absil, Mahony and Sepulchre, "Optimization algorithms on matrix
    manifolds", 2008, section 4.1.
    """
    method = checks.choice("method", method, METHODS)
    r, dtype = prepare_square("r", r)
    a, _ = prepare_square("a", a)
    check_alike("r", r, "a", a)
    a = ops.cast(a, r.dtype)
    if r.shape[0] == 0:
        return ops.cast(r, dtype)
    if method == "expm":
        r = r + exponential_increment(a, skew=True) @ r
    elif method == "cayley":
        r = r + cayley_increment(a) @ r
    elif method == "polar":
        r = nearest_orthogonal(r + a @ r)
    else:
        r = ops.transpose(_positive_qr(ops.transpose(r + a @ r)))
    return ops.cast(r, dtype)


def retract(w, tangent, method="expm"):
    """A point of the orthogonal or Stiefel manifold near `w + tangent`.

    Args:
        w: Floating tensor `(p, n)` with orthonormal columns (`p >= n`) or
            rows (`p <= n`).
        tangent: Floating tensor `(p, n)`, a tangent vector at `w`, see
            `tangent_projection`.
        method: `"expm"`: the geodesic of the canonical metric. `"cayley"`:
            its Cayley transform. `"polar"`: the nearest matrix to
            `w + tangent`. `"qr"`: its orthogonal factor with a positive
            diagonal of `R`, on columns if `w` is tall, else on rows. Defaults
            to `"expm"`.

    Returns:
        Tensor of the shape and dtype of `w`. Differentiable once; half
        precision is computed in `float32`.

    Raises:
        ValueError: If an argument is not a floating matrix, if their shapes
            differ, or if `method` is unknown.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.retractions import retract
    >>> w = retract([[1.0], [0.0]], [[0.0], [2.0]], method="cayley")
    >>> keras.ops.convert_to_numpy(w).tolist()
    [[0.0], [1.0]]

    Reference: Edelman, Arias and Smith, "The geometry of algorithms with
    orthogonality constraints", 1998; Wen and Yin, "A feasible method for
    optimization with orthogonality constraints", 2013 (Cayley).
    """
    method = checks.choice("method", method, METHODS)
    w, tangent = check_alike("w", w, "tangent", tangent)
    if 0 in w.shape:
        return w
    dtype = backend.standardize_dtype(w.dtype)
    w = ops.cast(w, working_dtype(dtype))
    tangent = ops.cast(tangent, w.dtype)
    if method == "polar":
        return ops.cast(nearest_orthogonal(w + tangent), dtype)
    if w.shape[0] == w.shape[1]:
        product = tangent @ ops.transpose(w)
        a = (product - ops.transpose(product)) / 2
        return ops.cast(retract_skew(w, a, method), dtype)
    wide = w.shape[0] < w.shape[1]
    if wide:
        w, tangent = ops.transpose(w), ops.transpose(tangent)
    if method == "qr":
        w = _positive_qr(w + tangent)
    else:
        w = _rotated_columns(w, tangent, method)
    return ops.cast(ops.transpose(w) if wide else w, dtype)


def _rotated_columns(w, z, method):
    """`expm(a) w` or `cayley(a) w` for a tall `w`, with `a w = z`.

    `a = u v^T` has rank `2 n`: `u = [k, w]`, `v = [w, -k]` with
    `k = z - w (w^T z) / 2`. So `f(a) w = w + u g(v^T u) v^T w` with
    `g = 1 / (1 - t/2)`, or `(e^t - 1) / t`, which is a block of an
    exponential.
    """
    n = w.shape[1]
    k = z - w @ (ops.transpose(w) @ z) / 2
    u = ops.concatenate([k, w], axis=1)
    vt = ops.transpose(ops.concatenate([w, -k], axis=1))
    if method == "expm" and w.shape[0] <= 3 * n:
        return w + exponential_increment(u @ vt, skew=True) @ w
    inner, right = vt @ u, vt @ w
    if method == "cayley":
        identity = ops.eye(2 * n, dtype=w.dtype)
        return w + u @ ops.solve(identity - inner / 2, right)
    rows = ops.concatenate([inner, right], axis=1)
    block = ops.pad(rows, [[0, n], [0, 0]])
    return w + u @ exponential_increment(block)[: 2 * n, 2 * n :]


def _positive_qr(x):
    """The orthogonal factor of a tall matrix, with `R_ii > 0`."""
    q, r = ops.qr(x)
    one = ops.ones((x.shape[1],), x.dtype)
    return q * ops.where(ops.diagonal(r) < 0, -one, one)
