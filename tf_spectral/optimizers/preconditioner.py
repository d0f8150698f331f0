"""The metrics of RMSspectral and ADAspectral (math 5.8)."""

from typing import NamedTuple

from keras import ops


class Preconditioner(NamedTuple):
    """Weights `A = sqrt(epsilon + sqrt(v))` of a norm `||A * step||`.

    `v` are the squares of gradients. The steepest step of that norm is
    `polar(G / A) / A`.

    Attributes:
        decay: Float in [0, 1), that of a moving average of squares, or `None`
            for their sum.
        epsilon: Positive float.

    Reference: Carlson et al., "Preconditioned spectral descent for deep
    learning", 2015.
    """

    decay: float | None
    epsilon: float

    def squares(self, old, gradient):
        """The squares after a gradient."""
        square = gradient * gradient
        if self.decay is None:
            return old + square
        return self.decay * old + (1 - self.decay) * square

    def weights(self, squares):
        """The weights `A`."""
        return ops.sqrt(self.epsilon + ops.sqrt(squares))
