"""The matrix of given reflectors and singular values."""

from keras import ops

from tf_spectral.linalg.householder import compact_wy
from tf_spectral.linalg.triangular import diagonal_matrix


def diagonal_plus_low_rank(u_vectors, sigma, v_vectors):
    """Factors `P`, `R` with `V diag(sigma) U^T = diag(sigma) - P R^T`.

    The cheapest way to multiply by the matrix when reflectors are few: two
    thin products and one scaling, whatever their number on either side.

    Args:
        u_vectors: Floating tensor `(m_u, n_out)`, the reflectors of U.
        sigma: Floating tensor `(min(n_in, n_out),)`; in the equation its
            diagonal matrix is padded by zeros to `(n_in, n_out)`.
        v_vectors: Floating tensor `(m_v, n_in)`, the reflectors of V.

    Returns:
        Tuple `(P, R)` of tensors `(n_in, m_v + m_u)`, `(n_out, m_v + m_u)`.
    """
    n_in, n_out = v_vectors.shape[1], u_vectors.shape[1]
    u, z_u = compact_wy(u_vectors)
    v, z_v = compact_wy(v_vectors)
    # (I - v^T z_v) S (I - z_u^T u), multiplied out.
    z_v_s = _times_diagonal(z_v, sigma, n_out)
    s_z_u = ops.transpose(_times_diagonal(z_u, sigma, n_in))
    v_t = ops.transpose(v)
    right = s_z_u - v_t @ (z_v @ s_z_u)
    p = ops.concatenate([v_t, right], axis=1)
    r = ops.transpose(ops.concatenate([z_v_s, u], axis=0))
    return p, r


def spectral_matrix(u_vectors, sigma, v_vectors):
    """The matrix `V diag(sigma) U^T` of shape `(n_in, n_out)`.

    Args:
        u_vectors: Floating tensor `(m_u, n_out)`, the reflectors of U.
        sigma: Floating tensor `(min(n_in, n_out),)`.
        v_vectors: Floating tensor `(m_v, n_in)`, the reflectors of V.

    Returns:
        Tensor `(n_in, n_out)`.

    Reference: Zhang et al., 2018, equation 6, transposed.
    """
    p, r = diagonal_plus_low_rank(u_vectors, sigma, v_vectors)
    shape = (v_vectors.shape[1], u_vectors.shape[1])
    padding = [[0, n - min(shape)] for n in shape]
    diagonal = ops.pad(diagonal_matrix(sigma), padding)
    return diagonal - p @ ops.transpose(r)


def _times_diagonal(rows, sigma, width):
    """Rows times the diagonal of sigma, padded or cut to `width` columns."""
    k = sigma.shape[0]
    return ops.pad(rows[:, :k] * sigma, [[0, 0], [0, width - k]])
