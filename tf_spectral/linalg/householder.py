"""Products of Householder reflectors in compact WY form.

A product of `m` reflectors `H(v) = I - 2 v v^T / |v|^2` is
`I - V^T T V` with an upper triangular `(m, m)` matrix `T`, so that neither
forming nor applying it takes a loop over reflectors (Schreiber and Van Loan,
1989; Joffrain et al., 2006; math of Zhang et al., 2018, equation 1).
"""

from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_rank
from tf_spectral.linalg.factorization import reflectors_from_orthogonal
from tf_spectral.linalg.factorization import svd_factors_from_matrix

__all__ = [
    "apply_householder",
    "compact_wy",
    "householder_product",
    "reflectors_from_orthogonal",
    "svd_factors_from_matrix",
]


def compact_wy(vectors):
    """Factors of a product of Householder reflectors.

    `H(v_0) H(v_1) ... H(v_{m-1}) = I - v^T z`, where `v` is `vectors` with
    each row divided by its largest entry and `z = T v`. A row of zeros is the
    identity and has a zero gradient.

    Args:
        vectors: Floating tensor `(m, n)`, one reflection vector a row.

    Returns:
        Tuple `(v, z)` of tensors `(m, n)`. Half precision is computed and
        returned in `float32`.

    Raises:
        ValueError: If `vectors` is not a floating matrix.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.householder import compact_wy
    >>> v, z = compact_wy([[2.0, 0.0]])
    >>> q = keras.ops.eye(2) - keras.ops.transpose(v) @ z
    >>> keras.ops.convert_to_numpy(q).tolist()
    [[-1.0, 0.0], [0.0, 1.0]]

    Reference: Joffrain et al., "Accumulating Householder transformations,
    revisited", 2006 (`T^-1` from the Gram matrix).
    """
    vectors = check_rank("vectors", vectors, 2)
    vectors = ops.cast(vectors, working_dtype(vectors.dtype))
    if vectors.shape[0] == 0:
        return vectors, vectors
    # H(c v) = H(v) for every c, so the scale may be held constant: it keeps
    # the squares in range for vectors of any length.
    scale = ops.max(ops.abs(vectors), axis=-1, keepdims=True)
    vectors = vectors / ops.stop_gradient(
        ops.where(scale > 0, scale, ops.ones_like(scale))
    )
    gram = vectors @ ops.transpose(vectors)
    half = ops.diagonal(gram) / 2
    half = ops.where(half == 0, ops.ones_like(half), half)
    inverse_t = upper_triangle(gram, k=1) + diagonal_matrix(half)
    return vectors, ops.solve_triangular(inverse_t, vectors, lower=False)


def householder_product(vectors):
    """The orthogonal matrix `H(v_0) H(v_1) ... H(v_{m-1})`.

    Args:
        vectors: Floating tensor `(m, n)`, one reflection vector a row. Rows
            need no normalisation; a row of zeros is the identity. `m` may
            exceed `n`.

    Returns:
        Tensor `(n, n)` of the dtype of `vectors`.

    Raises:
        ValueError: If `vectors` is not a floating matrix.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.householder import householder_product
    >>> q = householder_product([[1.0, 0.0]])
    >>> keras.ops.convert_to_numpy(q).tolist()
    [[-1.0, 0.0], [0.0, 1.0]]

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, equations 1 and 2.
    """
    vectors = check_rank("vectors", vectors, 2)
    v, z = compact_wy(vectors)
    identity = ops.eye(v.shape[-1], dtype=v.dtype)
    product = identity - ops.transpose(v) @ z
    return ops.cast(product, vectors.dtype)


def apply_householder(x, vectors, transpose=False):
    """Rows of `x` times a product of reflectors, never forming the product.

    Args:
        x: Floating tensor `(..., n)`.
        vectors: Floating tensor `(m, n)`, one reflection vector a row.
        transpose: Boolean, whether to apply the transpose (that is, the
            inverse) of the product. Defaults to `False`.

    Returns:
        Tensor of the shape and dtype of `x`.

    Raises:
        ValueError: If `vectors` is not a floating matrix, or if the last
            axis of `x` has another length than its rows.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.householder import apply_householder
    >>> y = apply_householder([[3.0, 5.0]], [[1.0, 0.0]])
    >>> keras.ops.convert_to_numpy(y).tolist()
    [[-3.0, 5.0]]
    """
    x = check_rank("x", x, None)
    transpose = checks.boolean("transpose", transpose)
    vectors = check_rank("vectors", vectors, 2)
    if x.shape[-1] != vectors.shape[-1]:
        raise ValueError(
            "Argument `x` must have as many columns as `vectors`. Expected "
            f"x.shape[-1]={vectors.shape[-1]}, Received: x.shape={x.shape}"
        )
    v, z = compact_wy(vectors)
    into, out_of = (z, v) if transpose else (v, z)
    rows = ops.cast(x, v.dtype)
    # The operator @ needs a matrix on TensorFlow.
    rows = rows[None] if x.ndim == 1 else rows
    rows = rows - (rows @ ops.transpose(into)) @ out_of
    return ops.cast(rows[0] if x.ndim == 1 else rows, x.dtype)


def upper_triangle(x, k=0):
    """The matrix `x` with zeros below its k-th diagonal."""
    rows, columns = (ops.arange(n) for n in x.shape)
    return ops.where(columns[None] >= rows[:, None] + k, x, ops.zeros_like(x))


def diagonal_matrix(d):
    """The square matrix with the vector `d` on its diagonal."""
    return ops.eye(d.shape[0], dtype=d.dtype) * d
