"""Exponential and Cayley transform: from skew matrices to rotations.

Keras has no matrix exponential, and the gradient of TensorFlow's own does
not compile under XLA. This one takes products only, of a degree that fits
the norm of the matrix.
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_square

DEGREES = (2, 4, 8)


def expm(a, skew=False):
    """The exponential of a matrix; of a skew matrix, a rotation.

    Args:
        a: Floating tensor `(d, d)`.
        skew: Boolean, whether `a` is known to be skew. If its norm is above
            about 2, two more products then make the result orthogonal to
            rounding; else its error grows with the norm. Defaults to `False`.

    Returns:
        Tensor of the shape and dtype of `a`. Differentiable once; half
        precision is computed in `float32`.

    Raises:
        ValueError: If `a` is not a square floating matrix.

    Example:

    >>> from tf_spectral.linalg.exponential import expm
    >>> rotation = expm([[0.0, -0.5], [0.5, 0.0]])
    >>> [round(float(entry), 4) for entry in rotation[0]]
    [0.8776, -0.4794]

    Reference: Bader, Blanes and Casas, "Computing the matrix exponential with
    an optimized Taylor polynomial approximation", 2019.
    """
    a, dtype = prepare_square("a", a)
    skew = checks.boolean("skew", skew)
    identity = ops.eye(a.shape[0], dtype=a.dtype)
    return ops.cast(identity + exponential_increment(a, skew), dtype)


def cayley(a):
    """The Cayley transform `(I - a/2)^-1 (I + a/2)` of a matrix.

    For a skew matrix it is a rotation that agrees with `expm(a)` up to third
    order. Its cost does not depend on the norm.

    Args:
        a: Floating tensor `(d, d)`, without eigenvalue 2. A skew matrix has
            none.

    Returns:
        Tensor of the shape and dtype of `a`. Half precision is computed in
        `float32`.

    Raises:
        ValueError: If `a` is not a square floating matrix.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.exponential import cayley
    >>> rotation = cayley([[0.0, -2.0], [2.0, 0.0]])
    >>> keras.ops.convert_to_numpy(rotation).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    a, dtype = prepare_square("a", a)
    identity = ops.eye(a.shape[0], dtype=a.dtype)
    return ops.cast(identity + cayley_increment(a), dtype)


def exponential_increment(a, skew=False):
    """`expm(a) - I` for a matrix of the working dtype.

    A rotation by a small angle keeps its small entries exact this way, and
    squarings double the rounding of the increment, not of the identity.
    """

    @ops.custom_gradient
    def run(a):
        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return _derivative(ops.transpose(a), upstream)

        square = a @ a
        norm = _norm_bound(a, square)
        x = _increment(a, square, norm)
        if skew:
            x = ops.cond(norm > 4, lambda: _orthogonalized(x), lambda: x)
        return x, grad

    return run(a)


def cayley_increment(a):
    """`cayley(a) - I` for a matrix of the working dtype."""
    identity = ops.eye(a.shape[0], dtype=a.dtype)
    return ops.solve(identity - a / 2, a)


def prepare_square(name, value):
    """A square matrix in the dtype to compute in, and its own dtype."""
    value = check_square(name, value)
    dtype = backend.standardize_dtype(value.dtype)
    return ops.cast(value, working_dtype(dtype)), dtype


def _derivative(a, direction):
    """The derivative of the exponential at `a`, in some direction.

    The upper right block of the exponential of `[[a, direction], [0, a]]`;
    the adjoint at `a` is the derivative at its transpose. The derivative is
    linear in the direction, so the norm of `a` alone sets degree and scale.
    """
    d = a.shape[0]
    above = ops.concatenate([a, direction], axis=1)
    below = ops.concatenate([ops.zeros_like(a), a], axis=1)
    block = ops.concatenate([above, below], axis=0)
    return _increment(block, block @ block, _norm_bound(a, a @ a))[:d, d:]


def _increment(a, square, norm):
    """`expm(a) - I`, given `a^2` and the norm to choose the degree by."""
    limits = [_largest_norm(degree, a.dtype) for degree in DEGREES]
    halvings = ops.maximum(ops.ceil(ops.log2(norm / limits[-1])), 0)
    # A matrix with NaN or infinity becomes NaN, without a loop.
    halvings = ops.where(halvings < 200, halvings, ops.zeros_like(halvings))
    scale = 0.5**halvings
    a, square = a * scale, square * scale * scale
    x = ops.cond(
        norm <= limits[0],
        lambda: a + square / 2,
        lambda: ops.cond(
            norm <= limits[1],
            lambda: a + square / 2 + square @ (a / 6 + square / 24),
            lambda: _eighth_degree(a, square),
        ),
    )
    return ops.while_loop(
        lambda k, x: k > 0,
        lambda k, x: (k - 1, 2 * x + x @ x),
        (ops.cast(halvings, "int32"), x),
    )[1]


def _orthogonalized(x):
    """A cubic step for `I + x`, whose squarings doubled their rounding."""
    identity = ops.eye(x.shape[0], dtype=x.dtype)
    q = identity + x
    return x - q @ ((ops.transpose(q) @ q - identity) / 2)


def _norm_bound(a, square):
    """What the powers of `a` grow like: at most its norm.

    For a skew matrix `||a||_2^2 = ||a^2||_2`, and of the latter the Frobenius
    norm is a far better bound than the row sums of `a`.
    """
    sums = ops.max(ops.sum(ops.abs(a), axis=0))
    frobenius = ops.sqrt(ops.sum(square * square))
    return ops.minimum(sums, ops.sqrt(frobenius))


def _largest_norm(degree, dtype):
    """Up to here the Taylor polynomial errs by one rounding of `a`.

    The first term left out is `t^(degree + 1) / (degree + 1)!`.
    """
    wide = backend.standardize_dtype(dtype) == "float64"
    unit = 2.0**-53 if wide else 2.0**-24
    return (unit * math.factorial(degree + 1)) ** (1 / degree)


def _eighth_coefficients():
    """Solves for the coefficients of `_eighth_degree`, from `a^8` downwards.

    With `y = a^2 (p a + q a^2)` the polynomial
    `(y + r a^2) (y + s a^2 + t a + w) + z a^2 + a` is to be the Taylor
    polynomial: the powers 8, 7 and 5 are linear, 6 fixes `r + s`, and 4 and
    3 make a quadratic in `r`.
    """
    taylor = [1 / math.factorial(k) for k in range(9)]
    q = math.sqrt(taylor[8])
    p = taylor[7] / (2 * q)
    total = (taylor[6] - p * p) / q
    t = (taylor[5] - total * p) / q
    linear = total - q * t / p
    constant = q * taylor[3] / p - taylor[4] + p * t
    r = (linear + math.sqrt(linear * linear + 4 * constant)) / 2
    w = (taylor[3] - r * t) / p
    return p, q, r, total - r, t, w, taylor[2] - r * w


_EIGHTH = _eighth_coefficients()


def _eighth_degree(a, square):
    """The Taylor polynomial of degree 8 without its 1, in two products."""
    p, q, r, s, t, w, z = _EIGHTH
    y = square @ (p * a + q * square)
    right = y + s * square + t * a + w * ops.eye(a.shape[0], dtype=a.dtype)
    return (y + r * square) @ right + z * square + a
