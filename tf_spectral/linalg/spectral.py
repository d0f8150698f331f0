"""The matrix of given reflectors and singular values."""

from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_rank
from tf_spectral.linalg.householder import apply_householder
from tf_spectral.linalg.householder import compact_wy
from tf_spectral.linalg.householder import diagonal_matrix


def diagonal_plus_low_rank(u_vectors, sigma, v_vectors):
    """Factors `P`, `Q` with `V diag(sigma) U^T = diag(sigma) - P Q^T`.

    The cheapest way to multiply by the matrix when reflectors are few: two
    thin products and one scaling, whatever their number on either side.

    Args:
        u_vectors: Floating tensor `(m_u, n_out)`, the reflectors of U.
        sigma: Floating tensor `(min(n_in, n_out),)`; in the equation its
            diagonal matrix is padded by zeros to `(n_in, n_out)`.
        v_vectors: Floating tensor `(m_v, n_in)`, the reflectors of V.

    Returns:
        Tuple `(P, Q)` of tensors `(n_in, m_v + m_u)`, `(n_out, m_v + m_u)`.

    Example:

    >>> from tf_spectral.linalg.spectral import diagonal_plus_low_rank
    >>> u, v = [[1.0, 0.0, 0.0]], [[0.0, 1.0]]
    >>> p, q = diagonal_plus_low_rank(u, [2.0, 3.0], v)
    >>> tuple(p.shape), tuple(q.shape)
    ((2, 2), (3, 2))
    """
    u_vectors, sigma, v_vectors = _checked(u_vectors, sigma, v_vectors)
    n_in, n_out = v_vectors.shape[1], u_vectors.shape[1]
    u, z_u = compact_wy(u_vectors)
    v, z_v = compact_wy(v_vectors)
    # (I - v^T z_v) S (I - z_u^T u), multiplied out.
    z_v_s = _times_diagonal(z_v, sigma, n_out)
    s_z_u = ops.transpose(_times_diagonal(z_u, sigma, n_in))
    v_t = ops.transpose(v)
    right = s_z_u - v_t @ (z_v @ s_z_u)
    p = ops.concatenate([v_t, right], axis=1)
    q = ops.transpose(ops.concatenate([z_v_s, u], axis=0))
    return p, q


def spectral_matrix(u_vectors, sigma, v_vectors):
    """The matrix `V diag(sigma) U^T` of shape `(n_in, n_out)`.

    Args:
        u_vectors: Floating tensor `(m_u, n_out)`, the reflectors of U.
        sigma: Floating tensor `(min(n_in, n_out),)`.
        v_vectors: Floating tensor `(m_v, n_in)`, the reflectors of V.

    Returns:
        Tensor `(n_in, n_out)`.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.spectral import spectral_matrix
    >>> w = spectral_matrix([[1.0, 0.0, 0.0]], [2.0, 3.0], [[0.0, 1.0]])
    >>> keras.ops.convert_to_numpy(w).tolist()
    [[-2.0, 0.0, 0.0], [0.0, -3.0, 0.0]]

    Reference: Zhang et al., 2018, equation 6, transposed.
    """
    u_vectors, sigma, v_vectors = _checked(u_vectors, sigma, v_vectors)
    p, q = diagonal_plus_low_rank(u_vectors, sigma, v_vectors)
    shape = (v_vectors.shape[1], u_vectors.shape[1])
    padding = [[0, n - min(shape)] for n in shape]
    diagonal = ops.pad(diagonal_matrix(sigma), padding)
    return diagonal - p @ ops.transpose(q)


def times_diagonal_plus_low_rank(x, sigma, p, q):
    """Rows times `diag(sigma) - P Q^T`, never forming the matrix.

    Args:
        x: Floating tensor `(b, n_in)`.
        sigma: Floating tensor `(min(n_in, n_out),)`.
        p: Floating tensor `(n_in, m)`.
        q: Floating tensor `(n_out, m)`.

    Returns:
        Tensor `(b, n_out)`.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.spectral import diagonal_plus_low_rank
    >>> from tf_spectral.linalg.spectral import times_diagonal_plus_low_rank
    >>> u, sigma, v = [[1.0, 0.0, 0.0]], [2.0, 3.0], [[0.0, 1.0]]
    >>> p, q = diagonal_plus_low_rank(u, sigma, v)
    >>> y = times_diagonal_plus_low_rank([[1.0, 1.0]], sigma, p, q)
    >>> keras.ops.convert_to_numpy(y).tolist()
    [[-2.0, -3.0, 0.0]]
    """
    x, sigma = check_rank("x", x, 2), check_rank("sigma", sigma, 1)
    p, q = check_rank("p", p, 2), check_rank("q", q, 2)
    sigma, p, q = (ops.cast(t, x.dtype) for t in (sigma, p, q))
    scaled = _times_diagonal(x, sigma, q.shape[0])
    return scaled - (x @ p) @ ops.transpose(q)


def solve_spectral(y, u_vectors, sigma, v_vectors):
    """Rows `x` with `x V diag(sigma) U^T = y`, for a square matrix.

    Args:
        y: Floating tensor `(..., n)`.
        u_vectors: Floating tensor `(m_u, n)`, the reflectors of U.
        sigma: Floating tensor `(n,)` without a zero.
        v_vectors: Floating tensor `(m_v, n)`, the reflectors of V.

    Returns:
        Tensor of the shape and dtype of `y`; half precision is computed in
        `float32`.

    Raises:
        ValueError: If `y` is not floating or has another width.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.spectral import solve_spectral
    >>> x = solve_spectral([[4.0, 3.0]], [[1.0, 0.0]], [2.0, 1.0], [[0.0, 1.0]])
    >>> keras.ops.convert_to_numpy(x).tolist()
    [[-2.0, -3.0]]
    """
    u_vectors, sigma, v_vectors = _checked(u_vectors, sigma, v_vectors)
    y = check_rank("y", y, None)
    if y.shape[-1] != u_vectors.shape[1]:
        raise ValueError(
            "Argument `y` has the wrong width. Expected "
            f"y.shape[-1]={u_vectors.shape[1]}, Received: y.shape={y.shape}"
        )
    rows = ops.cast(y, working_dtype(y.dtype))
    # The inverse is U diag(1 / sigma) V^T.
    rows = apply_householder(rows, u_vectors)
    rows = rows / ops.cast(sigma, rows.dtype)
    return ops.cast(apply_householder(rows, v_vectors, transpose=True), y.dtype)


def truncated_sigma(sigma, rank):
    """`sigma` with all but its `rank` largest entries in size set to zero.

    Args:
        sigma: Floating tensor `(k,)`.
        rank: Integer from 0 to `k`.

    Returns:
        Tensor `(k,)`.

    Raises:
        ValueError: If `rank` is out of range.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.spectral import truncated_sigma
    >>> sigma = truncated_sigma([1.0, -3.0, 2.0], rank=2)
    >>> keras.ops.convert_to_numpy(sigma).tolist()
    [0.0, -3.0, 2.0]
    """
    sigma = check_rank("sigma", sigma, 1)
    size = sigma.shape[0]
    rank = checks.integer("rank", rank, minimum=0, maximum=size)
    # By place, not by threshold: equal singular values are counted too.
    place = ops.argsort(ops.argsort(-ops.abs(sigma)))
    return ops.where(place < rank, sigma, ops.zeros_like(sigma))


def _checked(u_vectors, sigma, v_vectors):
    """The three as floating tensors that fit together."""
    u_vectors = check_rank("u_vectors", u_vectors, 2)
    v_vectors = check_rank("v_vectors", v_vectors, 2)
    sigma = check_rank("sigma", sigma, 1)
    size = min(u_vectors.shape[1], v_vectors.shape[1])
    if sigma.shape[0] != size:
        raise ValueError(
            f"Argument `sigma` has the wrong shape. Expected ({size},), "
            f"Received: sigma.shape={tuple(sigma.shape)}"
        )
    # A sum of parts, which have one dtype.
    dtype = working_dtype(u_vectors.dtype)
    return u_vectors, ops.cast(sigma, dtype), ops.cast(v_vectors, dtype)


def _times_diagonal(rows, sigma, width):
    """Rows times the diagonal of sigma, padded or cut to `width` columns."""
    k = sigma.shape[0]
    return ops.pad(rows[:, :k] * sigma, [[0, 0], [0, width - k]])
