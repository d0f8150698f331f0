"""Theorem 5 and Corollary 1 of Zhang et al., 2018, as printed.

In decimals of any exponent: nothing overflows, no logarithm is needed on the
way (math 2.12).
"""

from decimal import Decimal

import numpy as np


def _squares(matrix):
    """The squares of the spectral and the Frobenius norm."""
    sigma = np.linalg.svd(np.asarray(matrix, "float64"), compute_uv=False)
    return Decimal(float(sigma[0] ** 2)), Decimal(float(np.sum(sigma**2)))


def _width(m, y):
    n = Decimal(max(*np.shape(m), *np.shape(y)))
    return n, n.ln() if n >= 3 else (12 * n).ln()


def theorem(m, w, y, bound, steps, margin):
    """`B(w)` of Theorem 5, a Decimal."""
    bound, margin, t = map(Decimal, (bound, margin, steps))
    (m2, mf), (w2, wf), (y2, yf) = map(_squares, (m, w, y))
    n, log_n = _width(m, y)
    return (
        bound**2
        * t**2
        * n
        * log_n
        * max(w2 ** (steps - 1), Decimal(1))
        * m2
        * y2
        * (t**2 * wf + mf / m2 + yf / y2)
        / margin**2
    )


def corollary(m, y, bound, steps, margin, radius):
    """What Corollary 1 puts in its place."""
    bound, margin, t = map(Decimal, (bound, margin, steps))
    n, log_n = _width(m, y)
    growth = (1 + Decimal(radius)) ** (2 * steps)
    m2, y2 = _squares(m)[0], _squares(y)[0]
    return bound**2 * t**4 * n**2 * log_n * growth * m2 * y2 / margin**2


def gap(complexity, steps, examples, delta):
    """`sqrt((B + ln(t m / delta)) / m)`."""
    m = Decimal(examples)
    chance = (Decimal(steps) * m / Decimal(delta)).ln()
    return ((complexity + chance) / m).sqrt()
