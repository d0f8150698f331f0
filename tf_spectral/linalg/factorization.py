"""Reflectors and singular values of a given matrix.

The constructive theorems of Zhang et al., 2018 (Theorems 1, 2 and 4). They
run once, at the start of a training: on the host, in float64 NumPy, and take
no part in a gradient.
"""

import numpy as np
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.checks import check_rank


def reflectors_from_orthogonal(q):
    """Packed reflectors whose product begins with the given columns.

    Args:
        q: Floating tensor `(n, k)`, `k <= n`, with orthonormal columns.

    Returns:
        Tensor `(k, n)` of the dtype of `q`; row `i` is zero in its first `i`
        entries, and the first `k` columns of its `householder_product` are
        `q`. A row is zero where the reflector is the identity; the sign of
        the determinant of a square `q` decides whether the last one is.

    Raises:
        ValueError: If `q` is not a matrix of orthonormal columns.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.factorization import reflectors_from_orthogonal
    >>> rows = reflectors_from_orthogonal([[-1.0, 0.0], [0.0, 1.0]])
    >>> keras.ops.convert_to_numpy(rows).tolist()
    [[-1.0, 0.0], [0.0, 0.0]]

    Reference: Zhang et al., 2018, Theorem 1.
    """
    q, dtype = _to_host("q", q)
    n, k = q.shape
    if k > n:
        raise ValueError(
            "Argument `q` cannot have more columns than rows. Expected a "
            f"square or tall matrix, Received: q.shape={q.shape}"
        )
    error = np.abs(q.T @ q - np.eye(k)).max(initial=0.0)
    if not error <= 1e-3:
        raise ValueError(
            "Argument `q` must have orthonormal columns. Expected "
            f"max|q^T q - I| <= 1e-3, Received: {error:.2e}"
        )
    q, rows = q.copy(), np.zeros((k, n))
    for i in range(k):
        rows[i, i:] = vector_to_axis(q[i:, i])
        _reflect(rows[i], q)
    return ops.convert_to_tensor(rows, dtype=dtype)


def svd_factors_from_matrix(kernel, reflectors=None):
    """Reflectors and singular values that give a matrix.

    `kernel = V diag(sigma) U^T` (Keras orientation), exactly if there are at
    least `min(n_in, n_out)` reflectors on both sides. With fewer, the first
    `min(m_u, m_v)` singular triplets are exact and `sigma` is the least
    squares fit to the rest. Signs never reach the singular values of an exact
    factorisation: all are non-negative.

    Args:
        kernel: Floating tensor `(n_in, n_out)`.
        reflectors: `None` for `min(n_in, n_out)` on both sides, an integer,
            or a pair `(m_u, m_v)`. Defaults to `None`.

    Returns:
        Tuple `(u_vectors, sigma, v_vectors)` of shapes `(m_u, n_out)`,
        `(min(n_in, n_out),)`, `(m_v, n_in)`, in the dtype of `kernel`.

    Raises:
        ValueError: If `kernel` is not a finite floating matrix, or
            `reflectors` is out of range.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.factorization import svd_factors_from_matrix
    >>> u, sigma, v = svd_factors_from_matrix([[2.0, 0.0], [0.0, 1.0]])
    >>> keras.ops.convert_to_numpy(sigma).tolist()
    [2.0, 1.0]

    Reference: Zhang et al., 2018, Theorems 2 and 4.
    """
    kernel, dtype = _to_host("kernel", kernel)
    n_in, n_out = kernel.shape
    m_u, m_v = check_reflectors(reflectors, n_in, n_out)
    # The paper's orientation: W = U diag(sigma) V^T is the transposed kernel.
    u, sigma, vt = np.linalg.svd(kernel.T, full_matrices=False)
    u, v = _mix_repeated(u, vt.T, sigma)
    u_vectors, v_vectors = _pack_pairs(u.copy(), v.copy(), m_u, m_v)
    if min(m_u, m_v) < len(sigma):
        sigma = _fitted_sigma(kernel.T, u_vectors, v_vectors)
    return tuple(
        ops.convert_to_tensor(a, dtype=dtype)
        for a in (u_vectors, sigma, v_vectors)
    )


def check_reflectors(reflectors, n_in, n_out):
    """`(m_u, m_v)` from the argument `reflectors` of a layer.

    Example:

    >>> from tf_spectral.linalg.factorization import check_reflectors
    >>> check_reflectors(16, 128, 64)
    (16, 16)
    """
    if reflectors is None:
        return (min(n_in, n_out),) * 2
    m_u, m_v = checks.shape("reflectors", reflectors, 2, 0, repeat=True)
    if not (0 <= m_u <= n_out and 0 <= m_v <= n_in):
        raise ValueError(
            "Argument `reflectors` is out of range. Expected "
            f"0 <= m_u <= {n_out} and 0 <= m_v <= {n_in}, "
            f"Received: reflectors={reflectors}"
        )
    return m_u, m_v


def _to_host(name, value):
    value = check_rank(name, value, 2)
    array = np.asarray(ops.convert_to_numpy(ops.cast(value, "float64")))
    if not np.isfinite(array).all():
        raise ValueError(
            f"Argument `{name}` must be finite. Received: NaN or infinity"
        )
    return array.astype("float64"), backend.standardize_dtype(value.dtype)


def vector_to_axis(x):
    """The vector `u` with `H(u) x = |x| e_1`, without cancellation.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.linalg.factorization import vector_to_axis
    >>> u = vector_to_axis(np.array([3.0, 4.0]))
    >>> reflection = np.eye(2) - 2 * np.outer(u, u)
    >>> np.allclose(reflection @ [3.0, 4.0], [5.0, 0.0])
    True
    """
    rest, norm = x[1:] @ x[1:], np.linalg.norm(x)
    u = x.copy()
    u[0] = x[0] - norm if x[0] <= 0 else -rest / (x[0] + norm)
    length = np.linalg.norm(u)
    # Below rounding x lies on the axis already, and u would be noise.
    if length <= np.finfo("float64").eps * norm:
        return np.zeros_like(x)
    return u / length


def _reflect(u, matrix):
    """`matrix <- H(u) matrix` for a unit or zero vector `u`, in place."""
    matrix -= 2 * np.outer(u, u @ matrix)


def _pack_pairs(u, v, m_u, m_v):
    """Reflectors for both orthonormal factors, with signs chosen together."""
    u_vectors = np.zeros((m_u, len(u)))
    v_vectors = np.zeros((m_v, len(v)))
    for i in range(min(max(m_u, m_v), u.shape[1])):
        # Flipping a pair leaves the product: the larger leading entry is
        # made negative, so that fewest reflectors vanish.
        if i < min(m_u, m_v) and u[i, i] + v[i, i] > 0:
            u[:, i] *= -1
            v[:, i] *= -1
        if i < m_u:
            u_vectors[i, i:] = vector_to_axis(u[i:, i])
            _reflect(u_vectors[i], u)
        if i < m_v:
            v_vectors[i, i:] = vector_to_axis(v[i:, i])
            _reflect(v_vectors[i], v)
    _fill_spare_rows(u_vectors, u.shape[1])
    _fill_spare_rows(v_vectors, v.shape[1])
    return u_vectors, v_vectors


def _fill_spare_rows(rows, start):
    """Pairs of equal reflectors: they cancel, and zeros would never train."""
    rng = np.random.default_rng(0)
    for i in range(start, len(rows) - 1, 2):
        u = rng.normal(size=rows.shape[1] - i - 1)
        rows[i, i + 1 :] = rows[i + 1, i + 1 :] = u / np.linalg.norm(u)


def _mix_repeated(u, v, sigma):
    """Rotates the singular vectors of each repeated singular value.

    Any basis of a repeated singular value's space serves; a random one avoids
    reflectors that vanish, such as all of them for `-I`.
    """
    rng = np.random.default_rng(0)
    tolerance = 1e-12 * max(sigma.max(initial=0.0), np.finfo("float64").tiny)
    starts = np.flatnonzero(np.diff(sigma, prepend=np.inf) < -tolerance)
    for start, stop in zip(starts, [*starts[1:], len(sigma)]):
        if stop - start > 1:
            q, _ = np.linalg.qr(rng.normal(size=(stop - start,) * 2))
            u[:, start:stop] = u[:, start:stop] @ q
            v[:, start:stop] = v[:, start:stop] @ q
    return u, v


def _fitted_sigma(w, u_vectors, v_vectors):
    """`diag(U^T W V)`: the best singular values for given reflectors."""
    w = w.copy()
    for u in u_vectors:
        _reflect(u, w)
    w = w.T.copy()
    for v in v_vectors:
        _reflect(v, w)
    return np.diagonal(w).copy()
