"""Geometry of orthogonal matrices, in the orientation of Keras.

A kernel `w` acts on rows, `x -> x w`; it is the transpose of the matrix in
the papers. Square kernels are orthogonal, tall ones have orthonormal columns
and wide ones orthonormal rows (the Stiefel manifold).
"""

import math

from keras import ops

from tf_spectral import checks
from tf_spectral.linalg.checks import check_alike
from tf_spectral.linalg.checks import check_indices
from tf_spectral.linalg.checks import check_square
from tf_spectral.linalg.orthogonalization import nearest_orthogonal
from tf_spectral.linalg.orthogonalization import orthogonality_error
from tf_spectral.linalg.orthogonalization import reorthogonalize
from tf_spectral.linalg.orthogonalization import rounding_of
from tf_spectral.linalg.orthogonalization import seems_orthogonal

__all__ = [
    "nearest_orthogonal",
    "orthogonality_error",
    "partial_derivative",
    "reorthogonalize",
    "riemannian_gradient",
    "rounding_of",
    "seems_orthogonal",
    "skew_gradient",
    "skew_part",
    "tangent_projection",
]


def skew_part(a):
    """The skew part `(a - a^T) / 2` of a square matrix.

    Args:
        a: Floating tensor `(d, d)`.

    Returns:
        Tensor of the shape and dtype of `a`.

    Raises:
        ValueError: If `a` is not a square floating matrix.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.orthogonal import skew_part
    >>> keras.ops.convert_to_numpy(skew_part([[1.0, 4.0], [0.0, 1.0]])).tolist()
    [[0.0, 2.0], [-2.0, 0.0]]
    """
    a = check_square("a", a)
    return (a - ops.transpose(a)) / 2


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


def partial_derivative(r, g, j, l):  # noqa: E741 (the letters of the paper)
    """The derivative `S_jl / sqrt(2)` along the rotation of rows `j` and `l`.

    Two dot products of rows, never the product `r g^T`.

    Args:
        r: Floating orthogonal tensor `(d, d)`.
        g: Floating tensor `(d, d)`, the Euclidean gradient.
        j: Integer, or integer tensor `(k,)`.
        l: As `j`.

    Returns:
        Scalar tensor, or `(k,)`.

    Raises:
        ValueError: As `skew_gradient`.

    Example:

    >>> from tf_spectral.linalg.orthogonal import partial_derivative
    >>> g = [[0.0, 2.0], [-1.0, 0.0]]
    >>> d = partial_derivative([[1.0, 0.0], [0.0, 1.0]], g, 0, 1)
    >>> round(float(d), 4)
    -2.1213

    Reference: Massart and Abrol, 2022.
    """
    r, g = check_alike("r", check_square("r", r), "g", g)
    d = r.shape[0]
    j, l = check_indices("j", j, d), check_indices("l", l, d)  # noqa: E741
    rows_j, rows_l = ops.take(r, j, axis=0), ops.take(r, l, axis=0)
    g_j, g_l = ops.take(g, j, axis=0), ops.take(g, l, axis=0)
    return ops.sum(rows_j * g_l - g_j * rows_l, axis=-1) / math.sqrt(2)


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


def riemannian_gradient(w, g, metric="embedded"):
    """The gradient of a function on the orthogonal or Stiefel manifold.

    For a square `w` it is `-S w / 2` with `S = w g^T - g w^T`
    (`skew_gradient`); the paper has `W S / 2` for the transpose.

    Args:
        w: Floating tensor `(p, n)` with orthonormal columns (`p >= n`) or
            rows (`p <= n`).
        g: Floating tensor `(p, n)`, the Euclidean gradient.
        metric: `"embedded"`: the metric of the entries; the gradient is
            `tangent_projection(w, g)`. `"canonical"`: the metric of the
            quotient of the orthogonal group; the gradient is
            `g - w g^T w`. For a square `w` this is twice the former.
            Defaults to `"embedded"`.

    Returns:
        Tensor of the shape and dtype of `w`, a tangent vector.

    Raises:
        ValueError: If an argument is not a floating matrix, if their shapes
            differ, or if `metric` is unknown.

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
    if checks.choice("metric", metric, ("embedded", "canonical")) == "embedded":
        return tangent_projection(w, g)
    if w.shape[0] > w.shape[1]:
        return g - w @ (ops.transpose(g) @ w)
    return g - (w @ ops.transpose(g)) @ w
