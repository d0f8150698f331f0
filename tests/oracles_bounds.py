"""Float64 oracles of the DSGD bounds, written from math.md section 4."""

import math

import numpy as np

erf = np.vectorize(math.erf)
sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
gauss = lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi)  # noqa: E731

# Supremum, S1, S2, f(0) as printed in math.md 4.4 (gelu .. : rounded up).
ACTIVATIONS = {
    "linear": (None, 1.0, 0.0, 0.0),
    "sigmoid": (1.0, 0.25, 1 / (6 * 3**0.5), 0.5),
    "tanh": (1.0, 1.0, 4 / (3 * 3**0.5), 0.0),
    "softsign": (1.0, 1.0, 2.0, 0.0),
    "arctan": (np.pi / 2, 1.0, 0.6495190528, 0.0),
    "erf": (1.0, 2 / np.pi**0.5, 0.9678828981, 0.0),
    "sin": (1.0, 1.0, 1.0, 0.0),
    "softplus": (None, 1.0, 0.25, np.log(2)),
    "gelu": (None, 1.1290, 0.7979, 0.0),
    "silu": (None, 1.0999, 0.5, 0.0),
    "mish": (None, 1.0885, 0.6443, 0.0),
    "elu": (None, 1.0, 1.0, 0.0),
}

# f, f', f''.
FUNCTIONS = {
    "linear": (lambda x: x, np.ones_like, np.zeros_like),
    "sigmoid": (
        sigmoid,
        lambda x: sigmoid(x) * (1 - sigmoid(x)),
        lambda x: sigmoid(x) * (1 - sigmoid(x)) * (1 - 2 * sigmoid(x)),
    ),
    "tanh": (
        np.tanh,
        lambda x: 1 - np.tanh(x) ** 2,
        lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
    ),
    "softplus": (
        lambda x: np.logaddexp(0, x),
        sigmoid,
        lambda x: sigmoid(x) * (1 - sigmoid(x)),
    ),
    "gelu": (
        lambda x: x * (1 + erf(x / 2**0.5)) / 2,
        lambda x: (1 + erf(x / 2**0.5)) / 2 + x * gauss(x),
        lambda x: (2 - x * x) * gauss(x),
    ),
}


def power(n, exponent):
    return float(n) ** exponent


def inverse(q):
    return {1: 1.0, 2: 0.5, "inf": 0.0}[q]


def norm(k, q):
    """The induced norm in Keras' layout, math.md 4.2."""
    k = np.asarray(k, "float64")
    k = k.reshape(-1, k.shape[-1]) if k.ndim > 1 else k.reshape(1, -1)
    if q == 1:
        return np.abs(k).sum(1).max()
    if q == "inf":
        return np.abs(k).sum(0).max()
    return np.linalg.svd(k, compute_uv=False)[0]


def maximiser(g, q):
    """The unit matrix that maximises `<g, m>`, math.md 4.2."""
    if q == 2:
        a, _, b = np.linalg.svd(g, full_matrices=False)
        return a @ b
    axis = 1 if q == 1 else 0
    peak = np.abs(g).argmax(axis)
    m = np.zeros_like(g)
    index = np.arange(len(peak))
    where = (index, peak) if q == 1 else (peak, index)
    m[where] = np.where(g[where] < 0, -1.0, 1.0)
    return m


def loss_constants(loss, n, q, e=2.0):
    """`d1`, `d2` of math.md 4.3."""
    one, two = 1 - inverse(q), max(0.0, 1 - 2 * inverse(q))
    return {
        "sum_of_squares": (2 * e * power(n, one), 2 * power(n, two)),
        "mean_squared_error": (
            2 * e * power(n, one) / n,
            2 * power(n, two) / n,
        ),
        "crossentropy": (power(2, one), power(4, one) / 4),
        "binary_crossentropy": (power(n, one) / n, power(n, two) / 4 / n),
        "huber": (power(n, one) / n, power(n, two) / n),
    }[loss]


def chain_bounds(widths, activations, norms, q, loss, c1=None):
    """`s_i` of kernels and biases, alternating, for a chain; math.md 4.3.

    `norms` are the norms of the variables, in the same order.
    """
    layers = len(widths) - 1
    c = [power(widths[0], inverse(q)) if c1 is None else c1]
    for i in range(layers - 1):
        sup, _, _, zero = ACTIVATIONS[activations[i]]
        width = power(widths[i + 1], inverse(q))
        if sup is None:
            grown = norms[2 * i] * c[i] + norms[2 * i + 1]
            c.append(zero * width + grown)
        else:
            c.append(sup * width)
    d1, d2 = loss_constants(loss, widths[-1], q)
    s = []
    for i in range(layers):
        r, v = 1.0, 0.0
        for j in range(i + 1, layers):
            _, s1, s2, _ = ACTIVATIONS[activations[j]]
            z = norms[2 * j]
            v = s2 * (z * r) ** 2 + s1 * z * v
            r = s1 * z * r
        _, s1, s2, _ = ACTIVATIONS[activations[i]]
        unit = d2 * s1**2 * r**2 + d1 * (s1**2 * v + s2 * r)
        s += [c[i] ** 2 * unit, unit]
    return np.array(s)


class Jet:
    """Values `(N, n)` with first and second derivatives by one weight.

    `d` is `(m, N, n)` and `dd` `(m, m, N, n)` for a weight of `m` entries.
    """

    def __init__(self, value, d, dd):
        self.value, self.d, self.dd = value, d, dd

    @classmethod
    def constant(cls, x, m):
        return cls(x, np.zeros((m, *x.shape)), np.zeros((m, m, *x.shape)))

    def affine(self, kernel, bias, start=None):
        """`x k + b`; `start` names what the derivatives are taken by."""
        d = self.d @ kernel
        rows, columns = kernel.shape
        if start == "kernel":
            own = np.einsum("Ni,jn->ijNn", self.value, np.eye(columns))
            d = d + own.reshape(rows * columns, *own.shape[2:])
        elif start == "bias":
            d = d + np.eye(columns)[:, None, :]
        return Jet(self.value @ kernel + bias, d, self.dd @ kernel)

    def apply(self, name):
        f, f1, f2 = FUNCTIONS[name]
        x = self.value
        bend = f2(x) * self.d[:, None] * self.d[None]
        return Jet(f(x), f1(x) * self.d, bend + f1(x) * self.dd)

    def join(self, other, combine):
        return Jet(
            combine(self.value, other.value),
            combine(self.d, other.d),
            combine(self.dd, other.dd),
        )

    def hessian(self, loss, targets):
        """Second derivative of the mean loss over the rows, `(m, m)`."""
        gradient, curvature = loss_derivatives(loss, self.value, targets)
        second = np.einsum("pNi,Nij,qNj->pqN", self.d, curvature, self.d)
        second += np.einsum("Ni,pqNi->pqN", gradient, self.dd)
        return second.mean(-1)


def loss_derivatives(loss, y, z):
    """Gradient `(N, n)` and Hessian `(N, n, n)` of a loss by the output."""
    n = y.shape[-1]
    ones = np.ones_like(y)
    if loss == "sum_of_squares":
        return 2 * (y - z), 2 * ones[:, :, None] * np.eye(n)
    if loss == "mean_squared_error":
        return 2 * (y - z) / n, 2 * ones[:, :, None] * np.eye(n) / n
    if loss == "huber":
        inside = np.abs(y - z) < 1
        return np.clip(y - z, -1, 1) / n, inside[:, :, None] * np.eye(n) / n
    if loss == "binary_crossentropy":
        p = sigmoid(y)
        return (p - z) / n, (p * (1 - p))[:, :, None] * np.eye(n) / n
    p = np.exp(y - y.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    outer = p[:, :, None] * p[:, None, :]
    return p - z, p[:, :, None] * np.eye(n) - outer


def bilinear_norm(hessian, shape, q, rng, starts=4, rounds=8):
    """A lower estimate of `sup <u, H v>` over unit matrices of the q-norm."""
    shape = shape if len(shape) > 1 else (1, *shape)
    best = 0.0
    for _ in range(starts):
        u = maximiser(rng.normal(size=shape), q)
        for _ in range(rounds):
            image = (hessian @ u.ravel()).reshape(shape)
            u = maximiser(image, q)
            best = max(best, float((image * u).sum()))
    return best
