"""Norms, duality maps and polar factors once more, in float64 NumPy.

Written from the specification alone (math 1 and 4.2): loops and a singular
value decomposition. Keras orientation: kernels `(in, out)`.
"""

import numpy as np


def as_matrix(x):
    """A kernel of any rank with all axes but the last joined."""
    x = np.asarray(x, "float64")
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)


def singular_values(x):
    return np.linalg.svd(as_matrix(x), compute_uv=False)


def nuclear_norm(x):
    return np.sum(singular_values(x))


def polar_factor(x):
    """`A B^T` of the numerical rank; zero for zero."""
    x = np.asarray(x, "float64")
    a, s, bt = np.linalg.svd(x, full_matrices=False)
    q = np.zeros_like(x)
    for i in range(len(s)):
        if s[i] > s[0] * np.finfo("float64").eps * max(x.shape):
            q += np.outer(a[:, i], bt[i])
    return q


def induced_norm(kernel, q):
    """Largest q-norm of a row `x k` over rows `x` of q-norm one."""
    k = as_matrix(kernel)
    if q == 2:
        return singular_values(k)[0]
    # Both are attained at a vertex: one input alone, or all with signs.
    if q == 1:
        return max(sum(abs(entry) for entry in row) for row in k)
    return max(sum(abs(entry) for entry in column) for column in k.T)


def dual_norm(gradient, q):
    """Largest `<g, k>` over kernels of norm one."""
    g = as_matrix(gradient)
    if q == 2:
        return nuclear_norm(g)
    lines = g if q == 1 else g.T
    return sum(max(abs(entry) for entry in line) for line in lines)


def duality_map(gradient, q):
    """The dual norm times its maximiser, first of equal entries."""
    g = as_matrix(gradient)
    if q == 2:
        step = polar_factor(g)
    else:
        step = np.zeros_like(g)
        for line, out in zip(g, step) if q == 1 else zip(g.T, step.T):
            j = int(np.argmax(np.abs(line)))
            out[j] = np.sign(line[j])
    return (dual_norm(g, q) * step).reshape(np.shape(gradient))


def composition(s, schedule):
    """The singular values after every step of a schedule and its peak."""
    for stage in schedule.stages:
        for step in stage:
            s = odd_polynomial(s, step.coefficients)
    return s / schedule.peak


def odd_polynomial(s, coefficients):
    return sum(c * s ** (2 * i + 1) for i, c in enumerate(coefficients))
