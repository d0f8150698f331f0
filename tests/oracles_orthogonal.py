"""The orthogonal group in plain float64 NumPy, in the papers' orientation.

Written from math.md sections 1.5 and 3: `W` acts on columns, rotations mix
columns of `W`, and a step multiplies from the right. The package works on
the transpose, so tests transpose.
"""

import numpy as np


def plane(d, j, l):  # noqa: E741
    """`H_jl = (e_j e_l^T - e_l e_j^T) / sqrt 2`."""
    h = np.zeros((d, d))
    h[j, l], h[l, j] = 1 / np.sqrt(2), -1 / np.sqrt(2)
    return h


def givens(d, j, l, phi):  # noqa: E741
    """`G_jl(phi)` of math 3.1."""
    g = np.eye(d)
    g[j, j] = g[l, l] = np.cos(phi)
    g[j, l], g[l, j] = np.sin(phi), -np.sin(phi)
    return g


def skew_gradient(w, g):
    return w.T @ g - g.T @ w


def riemannian_gradient(w, g):
    return w @ skew_gradient(w, g) / 2


def partial_derivative(w, g, j, l):  # noqa: E741
    return (w[:, j] @ g[:, l] - w[:, l] @ g[:, j]) / np.sqrt(2)


def all_pairs(d):
    return [(j, l) for j in range(d) for l in range(j + 1, d)]  # noqa: E741


def expm(a):
    """By the Taylor series of `a / 2^k` to degree 30, squared k times."""
    k = max(0, int(np.ceil(np.log2(max(np.linalg.norm(a, 2), 1e-300)))) + 3)
    term = total = np.eye(len(a))
    for n in range(1, 31):
        term = term @ a / 2.0**k / n
        total = total + term
    for _ in range(k):
        total = total @ total
    return total


def skew_expm(a):
    """Of a skew matrix, by the eigenvalues of the Hermitian `i a`."""
    values, vectors = np.linalg.eigh(1j * np.asarray(a, "float64"))
    return ((vectors * np.exp(-1j * values)) @ vectors.conj().T).real


def cayley(a):
    identity = np.eye(len(a))
    return np.linalg.inv(identity - a / 2) @ (identity + a / 2)


def polar(x):
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return u @ vt


def positive_qr(x):
    q, r = np.linalg.qr(x)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def retract(w, a, method):
    """The table of math 3.5: `R_W(W A)` for a skew `A`."""
    if method == "expm":
        return w @ skew_expm(a)
    if method == "cayley":
        return w @ cayley(a)
    moved = w @ (np.eye(len(a)) + a)
    return polar(moved) if method == "polar" else positive_qr(moved)


def greedy_pairs(scores):
    """All pairs by decreasing score, ties by (j, l), as long as both free."""
    d = len(scores)
    order = sorted(all_pairs(d), key=lambda p: (-scores[p], p))
    free, chosen = set(range(d)), []
    for j, l in order:  # noqa: E741
        if j in free and l in free:
            free -= {j, l}
            chosen.append((j, l))
    return np.array(chosen, int).reshape(-1, 2)


def directional_derivative(f, x, direction, h=1e-4):
    """Central difference of fourth order."""
    f1 = f(x + h * direction) - f(x - h * direction)
    f2 = f(x + 2 * h * direction) - f(x - 2 * h * direction)
    return (8 * f1 - f2) / (12 * h)


def gradient(f, x, h=1e-4):
    """By central differences of fourth order, entry by entry."""
    result = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[place] = 1.0
        result[place] = directional_derivative(f, x, e, h)
    return result
