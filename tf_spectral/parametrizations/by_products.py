"""ByProducts: what a kept singular value decomposition gives at no cost."""

import numpy as np
from keras import ops

from tf_spectral.linalg.spectral import solve_spectral
from tf_spectral.linalg.spectral import spectral_matrix
from tf_spectral.linalg.spectral import truncated_sigma


class ByProducts:
    """The part of `SVD` that reads off its factors, never the matrix.

    Reference: Zhang et al., 2018, section 3; Mathiasen et al., "What if
    neural networks had SVDs?", 2020.
    """

    def singular_values(self):
        """The singular values of the matrix, in no order."""
        return ops.abs(self.sigma())

    def condition_number(self):
        """The largest singular value divided by the smallest: a scalar.

        Infinite where the smallest is zero.
        """
        sigma = self.singular_values()
        least = ops.min(sigma)
        ratio = ops.max(sigma) / ops.where(least > 0, least, 1.0)
        return ops.where(least > 0, ratio, np.inf)

    def log_abs_det(self):
        """`log |det matrix|`, a scalar: the sum of the logs of sigma.

        Raises:
            ValueError: If the matrix is not square.
        """
        self._check_square("log_abs_det")
        return ops.sum(ops.log(self.singular_values()))

    def solve(self, y):
        """Rows `x` with `x matrix = y`, through reflectors alone.

        Nothing is factored or inverted but sigma: the error is that of
        rounding times at most the condition number. Where sigma has a zero,
        the result is not finite.

        Args:
            y: Floating tensor `(..., n)`.

        Returns:
            Tensor of the shape and dtype of `y`.

        Raises:
            ValueError: If the matrix is not square, or if `y` does not fit.
        """
        self._check_square("solve")
        return solve_spectral(
            y, self.u_vectors(), self.sigma(), self.v_vectors()
        )

    def truncated_matrix(self, rank):
        """The matrix of that rank which is nearest to the matrix.

        Args:
            rank: Integer from 0 to `min(n_in, n_out)`, how many of the
                largest singular values to keep.

        Returns:
            Tensor `(n_in, n_out)`.

        Raises:
            ValueError: If `rank` is out of range.

        Reference: Eckart and Young, 1936.
        """
        sigma = truncated_sigma(self.sigma(), rank)
        return spectral_matrix(self.u_vectors(), sigma, self.v_vectors())

    def _check_square(self, name):
        n_in, n_out = self.shape
        if n_in != n_out:
            raise ValueError(
                f"`{name}` needs a square matrix. Received: shape={self.shape}"
            )
