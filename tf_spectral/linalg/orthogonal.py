"""Geometry of orthogonal matrices, in the orientation of Keras.

A kernel `w` acts on rows, `x -> x w`; it is the transpose of the matrix in
the papers. Square kernels are orthogonal, tall ones have orthonormal columns
and wide ones orthonormal rows (the Stiefel manifold).
"""

import keras
import numpy as np
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_alike
from tf_spectral.checks import check_rank
from tf_spectral.checks import check_square
from tf_spectral.linalg.norms import frobenius_norm
from tf_spectral.linalg.norms import spectral_norm_upper_bound
from tf_spectral.linalg.polar import polar_factor

__all__ = [
    "nearest_orthogonal",
    "orthogonality_error",
    "reorthogonalize",
    "riemannian_gradient",
    "rounding_of",
    "seems_orthogonal",
    "skew_gradient",
    "tangent_projection",
]


def skew_gradient(r, g):
    """`S = r g^T - g r^T`, the gradient seen from the orthogonal group.

    `S / 2` in the frame of `r` is the Riemannian gradient, and
    `S_jl / sqrt(2)` the partial derivative along the rotation of rows `j` and
    `l`. One product and its transpose.

    Args:
        r: Floating orthogonal tensor `(d, d)`.
        g: Floating tensor `(d, d)`, the Euclidean gradient.

    Returns:
        Tensor `(d, d)`, skew to the last bit.

    Raises:
        ValueError: If an argument is not a square floating matrix, or if
            their shapes differ.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.orthogonal import skew_gradient
    >>> s = skew_gradient([[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [-1.0, 0.0]])
    >>> keras.ops.convert_to_numpy(s).tolist()
    [[0.0, -3.0], [3.0, 0.0]]

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022, transposed.
    """
    r, g = check_alike("r", check_square("r", r), "g", g)
    product = r @ ops.transpose(g)
    return product - ops.transpose(product)


def tangent_projection(w, z):
    """The tangent vector at `w` nearest to `z`.

    `z - w sym(w^T z)` for a tall `w`, `z - sym(z w^T) w` for another, where
    `sym` is the symmetric part.

    Args:
        w: Floating tensor `(p, n)` with orthonormal columns (`p >= n`) or
            rows (`p <= n`).
        z: Floating tensor `(p, n)`.

    Returns:
        Tensor of the shape and dtype of `w`.

    Raises:
        ValueError: If an argument is not a floating matrix, or if their
            shapes differ.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.orthogonal import tangent_projection
    >>> w, z = [[1.0, 0.0], [0.0, 1.0]], [[3.0, 2.0], [0.0, 5.0]]
    >>> z = tangent_projection(w, z)
    >>> keras.ops.convert_to_numpy(z).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]

    Reference: Edelman, Arias and Smith, "The geometry of algorithms with
    orthogonality constraints", 1998.
    """
    w, z = check_alike("w", w, "z", z)
    if w.shape[0] > w.shape[1]:
        product = ops.transpose(w) @ z
        return z - w @ ((product + ops.transpose(product)) / 2)
    product = z @ ops.transpose(w)
    return z - ((product + ops.transpose(product)) / 2) @ w


def riemannian_gradient(w, g):
    """The gradient of a function on the orthogonal or Stiefel manifold.

    For a square `w` it is `-S w / 2` with `S = w g^T - g w^T`
    (`skew_gradient`); the paper has `W S / 2` for the transpose. The metric
    is that of the entries.

    Args:
        w: Floating tensor `(p, n)` with orthonormal columns (`p >= n`) or
            rows (`p <= n`).
        g: Floating tensor `(p, n)`, the Euclidean gradient.

    Returns:
        Tensor of the shape and dtype of `w`, a tangent vector.

    Raises:
        ValueError: If an argument is not a floating matrix, or if their
            shapes differ.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.orthogonal import riemannian_gradient
    >>> w, g = [[1.0, 0.0], [0.0, 1.0]], [[3.0, 2.0], [0.0, 5.0]]
    >>> z = riemannian_gradient(w, g)
    >>> keras.ops.convert_to_numpy(z).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]

    Reference: Edelman, Arias and Smith, 1998.
    """
    w, g = check_alike("w", w, "g", g)
    return tangent_projection(w, g)


# A singular value grows by half a step: from 1e-9 to one, and a few more.
MOST_STEPS = 60
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}


def orthogonality_error(w, exact=False):
    """`||w^T w - I||_2`, or of `w w^T` if `w` is wide.

    Args:
        w: Floating tensor `(p, n)`.
        exact: Boolean, whether to compute the norm by a slow decomposition;
            else it is a bound from above, at most 9% too large for 300
            columns. Defaults to `False`.

    Returns:
        Scalar tensor, computed in `float64` where the backend has it.

    Raises:
        ValueError: If `w` is not a floating matrix.

    Example:

    >>> from tf_spectral.linalg.orthogonal import orthogonality_error
    >>> round(float(orthogonality_error([[2.0, 0.0], [0.0, 1.0]])), 4)
    3.0
    """
    w = check_rank("w", w, 2)
    exact = checks.boolean("exact", exact)
    x, _ = _as_tall(ops.cast(w, widest_dtype()))
    error = _gram_error(x)
    if not exact:
        return spectral_norm_upper_bound(error)
    if 0 in error.shape:
        return ops.zeros((), error.dtype)
    return ops.max(ops.svd(error, compute_uv=False))


def seems_orthogonal(w, tolerance=None):
    """Whether a matrix keeps the length and the angles of a few vectors.

    Two thin products, where the error of the whole matrix would take a
    product of matrices. What a step has destroyed does not pass, unless the
    error is at right angles to all of eight vectors.

    Args:
        w: Floating tensor `(p, n)`.
        tolerance: Positive float, what `||w^T w x - x||` may be for unit
            vectors. Defaults to a hundred roundings of the dtype of `w`, and
            at least `1e-2`.

    Returns:
        Boolean scalar tensor, false where `w` has NaN or infinity.

    Example:

    >>> from tf_spectral.linalg.orthogonal import seems_orthogonal
    >>> bool(seems_orthogonal([[0.0, 1.0], [-1.0, 0.0]]))
    True
    >>> bool(seems_orthogonal([[1.0, 1.0], [-1.0, 0.0]]))
    False
    """
    w = check_rank("w", w, 2)
    if tolerance is None:
        tolerance = max(1e-2, 100 * rounding_of(w.dtype))
    tolerance = checks.positive("tolerance", tolerance, checks.SQUARABLE)
    x, _ = _as_tall(ops.cast(w, working_dtype(w.dtype)))
    n = x.shape[1]
    probes = np.random.default_rng(0).standard_normal((n, 8))
    probes /= np.maximum(np.linalg.norm(probes, axis=0), 1e-30)
    probes = ops.convert_to_tensor(probes, x.dtype)
    lost = ops.transpose(x) @ (x @ probes) - probes
    squares = ops.sum(lost * lost, axis=0)
    # NaN is not below.
    return ops.all(squares <= tolerance**2)


def reorthogonalize(w):
    """One cubic step towards the nearest orthogonal matrix.

    `w (3 I - w^T w) / 2`: an error `E = w^T w - I` becomes
    `-3/4 E^2 + E^3 / 4`. In `float64` where the backend has it, for products
    in `float32` leave more error than a long training adds.

    Args:
        w: Floating tensor `(p, n)`, of singular values below `sqrt(3)`.

    Returns:
        Tensor of the shape and dtype of `w`.

    Raises:
        ValueError: If `w` is not a floating matrix.

    Example:

    >>> from tf_spectral.linalg.orthogonal import reorthogonalize
    >>> round(float(reorthogonalize([[1.01]])[0, 0]), 4)
    0.9998

    Reference: Bjorck and Bowie, "An iterative algorithm for computing the
    best estimate of an orthogonal matrix", 1971.
    """
    w = check_rank("w", w, 2)
    x, wide = _as_tall(ops.cast(w, widest_dtype()))
    x = _cubic_step(x, _gram_error(x))
    return ops.cast(ops.transpose(x) if wide else x, w.dtype)


def nearest_orthogonal(w):
    """The nearest matrix with orthonormal columns, or rows if `w` is wide.

    It is the polar factor, to rounding: cubic steps, after `polar_factor` if
    `w` is far from orthogonal. Near it two or three steps are enough.

    Where singular values are zero, or below about `1e-9` of the largest, many
    matrices are nearest: their directions are paired as drawn from a fixed
    seed.

    Args:
        w: Floating tensor `(p, n)`.

    Returns:
        Tensor of the shape and dtype of `w`, with orthonormal columns or rows
        for every finite `w`; NaN where `w` has NaN or infinity. Differentiable
        once, where `w` has full rank; half precision is computed in
        `float32`.

    Raises:
        ValueError: If `w` is not a floating matrix.

    Example:

    >>> import keras
    >>> from tf_spectral.constraints import nearest_orthogonal
    >>> q = nearest_orthogonal([[0.0, -4.0], [3.0, 0.0]])
    >>> keras.ops.convert_to_numpy(keras.ops.round(q, 5)).tolist()
    [[0.0, -1.0], [1.0, 0.0]]

    Reference: Higham, "Computing the polar decomposition", 1986.
    """
    w = check_rank("w", w, 2)
    if 0 in w.shape:
        return w

    @ops.custom_gradient
    def run(x):
        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return _polar_derivative(x, upstream)

        return _polar(x), grad

    x, wide = _as_tall(ops.cast(w, working_dtype(w.dtype)))
    q = run(x)
    return ops.cast(ops.transpose(q) if wide else q, w.dtype)


def widest_dtype():
    """`"float64"`, or `"float32"` where the backend has no `float64`."""
    return backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1)).dtype)


def rounding_of(dtype):
    """The relative error of one rounding in a floating dtype.

    Args:
        dtype: String, the dtype.

    Returns:
        Float.

    Raises:
        ValueError: If it is no floating dtype.

    Example:

    >>> from tf_spectral.linalg.orthogonal import rounding_of
    >>> rounding_of("float32") == 2.0**-24
    True
    """
    return _ROUNDING.get(checks.floating_dtype("dtype", dtype), 2.0**-24)


def _as_tall(w):
    wide = w.shape[0] < w.shape[1]
    return (ops.transpose(w) if wide else w), wide


def _gram_error(x):
    return ops.transpose(x) @ x - ops.eye(x.shape[1], dtype=x.dtype)


def _is_near(x):
    """Whether all singular values are between 0.7 and 1.3 (about)."""
    return ops.sum(ops.square(_gram_error(x))) < 0.25


def _cubic_step(x, error):
    # The small change of x, rather than x itself, takes the rounding.
    return x - x @ (error / 2)


def _polar(x):
    """The polar factor of a tall matrix; what it lacks of rank is drawn."""

    def orthogonal(x):
        return _until_orthogonal(lambda x, error: (_cubic_step(x, error),), x)

    x = ops.cond(_is_near(x), lambda: x, lambda: polar_factor(x))
    size, x = orthogonal(x)
    return ops.cond(
        size > _enough(x),
        lambda: orthogonal(_completed(x))[1],
        lambda: x,
    )


def _completed(x):
    """A matrix of singular values 0 and 1, with others in place of zeros.

    `I - x x^T` and `I - x^T x` project to what is missing: a random matrix
    between the two leaves the rest alone.
    """
    drawn = keras.random.normal(x.shape, dtype=x.dtype, seed=0)
    y = -drawn @ _gram_error(x)
    y = y - x @ (ops.transpose(x) @ y)
    return x + y / ops.maximum(frobenius_norm(y), 1e-30)


def _polar_derivative(x, direction):
    """The derivative of the polar factor of a tall matrix in a direction.

    The cubic steps on `x` and its derivative together. The factor does not
    depend on the scale of `x`, and its derivative is self-adjoint, for
    singular vectors `i` and `j` it divides by `s_i + s_j`: the gradient is
    the derivative in the direction of the cotangent.
    """

    def step(x, dx, error):
        product = ops.transpose(x) @ dx
        slope = product + ops.transpose(product)
        dx = dx - (dx @ error + x @ slope) / 2
        return _cubic_step(x, error), dx

    near = _is_near(x)
    scale = ops.where(near, ops.ones((), x.dtype), frobenius_norm(x))
    _, x, dx = _until_orthogonal(step, x / scale, direction / scale)
    # The derivative is one step behind.
    return step(x, dx, _gram_error(x))[1]


def _until_orthogonal(step, *matrices):
    """Repeats a step until the error is the root of one rounding, and less.

    Returns:
        The error before the last step, and the matrices.
    """

    def body(size, *matrices):
        error = _gram_error(matrices[0])
        size = ops.sqrt(ops.sum(error * error))
        return (size, *step(*matrices, error))

    return ops.while_loop(
        lambda size, *matrices: size > _enough(matrices[0]),
        body,
        (ops.full((), np.inf, matrices[0].dtype), *matrices),
        maximum_iterations=MOST_STEPS,
    )


def _enough(x):
    """An error that one cubic step makes that of rounding."""
    wide = backend.standardize_dtype(x.dtype) == "float64"
    return 2.0**-27 if wide else 2.0**-12
