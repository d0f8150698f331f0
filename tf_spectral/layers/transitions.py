"""The two forms of a transition matrix, and which of them costs less.

Both act on rows, `h -> h R`, and know the cotangents of their tensors from
rows `h` that went in and cotangents `delta` of what came out.
"""

from typing import Any
from typing import NamedTuple

from keras import ops

from tf_spectral.linalg.checks import working_dtype


class Dense(NamedTuple):
    """The transition `h -> h kernel`, `kernel` of shape `(n, n)`."""

    kernel: Any

    def forward(self):
        kernel = self.kernel
        return lambda h: h @ kernel

    def forward_with(self, kernel):
        """The function `(h, x) -> x kernel + h R`."""
        advance = self.forward()
        return lambda h, x: x @ kernel + advance(h)

    def backward(self):
        kernel_t = ops.transpose(self.kernel)
        return lambda d: d @ kernel_t

    def zeros(self):
        return (_zeros_like(self.kernel),)

    def accumulate(self, sums, h, delta):
        return (sums[0] + outer(h, delta),)

    def gradients(self, sums):
        return sums


class DiagonalPlusLowRank(NamedTuple):
    """The transition `h -> h (diag(sigma) - p r^T)`.

    `sigma` has shape `(n,)`, `p` and `r` have shape `(n, rank)`.
    """

    sigma: Any
    p: Any
    r: Any

    def forward(self):
        return self._times(self.p, ops.transpose(self.r))

    def forward_with(self, kernel):
        """The function `(h, x) -> x kernel + h R`."""
        sigma, p = self.sigma, self.p
        # One product for both terms: the fewer passes over rows, the better.
        out_of = ops.concatenate([-ops.transpose(self.r), kernel], axis=0)

        def advance(h, x):
            return h * sigma + ops.concatenate([h @ p, x], axis=1) @ out_of

        return advance

    def backward(self):
        return self._times(self.r, ops.transpose(self.p))

    def _times(self, into, out_of):
        sigma = self.sigma
        return lambda h: h * sigma - (h @ into) @ out_of

    @property
    def _thin(self):
        # One square product of all rows against three thin ones.
        units, rank = self.p.shape
        return units > 3 * rank

    def zeros(self):
        if self._thin:
            return tuple(_zeros_like(t) for t in self)
        units = self.p.shape[0]
        return (_zeros_like(self.p, (units, units)),)

    def accumulate(self, sums, h, delta):
        if not self._thin:
            return (sums[0] + outer(h, delta),)
        sigma, p, r = sums
        return (
            sigma + ops.cast(ops.sum(h * delta, axis=0), sigma.dtype),
            p - outer(h, delta @ self.r),
            r - outer(delta, h @ self.p),
        )

    def gradients(self, sums):
        if self._thin:
            return sums
        (total,) = sums
        p, r = (ops.cast(t, total.dtype) for t in (self.p, self.r))
        return (
            ops.diagonal(total),
            -(total @ r),
            -(ops.transpose(total) @ p),
        )


def low_rank_pays(units, rank, rows=None):
    """Whether `diag(sigma) - P R^T` costs less than forming the matrix.

    Args:
        units: Integer `n`, the size of the matrix.
        rank: Integer, the number of reflectors on both sides together.
        rows: Integer, how many rows will be multiplied (batch times time), or
            `None` for many.

    Returns:
        Boolean: `n (1 / rank + 1 / rows) >= 2`.
    """
    return units * (1 / max(rank, 1) + (1 / rows if rows else 0)) >= 2


def _zeros_like(tensor, shape=None):
    return ops.zeros(shape or tensor.shape, working_dtype(tensor.dtype))


def outer(a, b):
    """Sum over all rows of `a_i^T b_i`, in float32 or better."""
    product = ops.transpose(a) @ b
    return ops.cast(product, working_dtype(product.dtype))
