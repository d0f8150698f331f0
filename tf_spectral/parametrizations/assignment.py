"""Assignable: the weights of a decomposition from a given matrix."""

import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.linalg.checks import check_rank
from tf_spectral.linalg.factorization import svd_factors_from_matrix
from tf_spectral.linalg.spectral import spectral_matrix
from tf_spectral.parametrizations import singular_values as sv


class Assignable:
    """The part of `SVD` that sets its weights from a matrix."""

    def assign_matrix(self, kernel, exact=True):
        """Sets the weights so that `matrix()` is `kernel`, or close to it.

        With fewer than `min(n_in, n_out)` reflectors in U or V their first
        singular triplets are those of `kernel` and `sigma` is fitted to the
        rest by least squares.

        Args:
            kernel: Floating matrix `(n_in, n_out)`.
            exact: Boolean. `False` takes the fit that the reflectors and the
                bounds of sigma allow, and moves singular values outside of
                the bounds to the nearest one inside. Defaults to `True`.

        Returns:
            Float, the residual `||kernel - matrix()||_F / ||kernel||_F`, not
            divided for a kernel of zeros.

        Raises:
            ValueError: If the shape differs; with `exact=True` also if a
                singular value lies outside of the bounds (the message says
                which would do), or if the reflectors are too few (the message
                gives the residual). The weights are then as they were.

        Reference: Zhang et al., 2018, Theorems 2 and 4.
        """
        exact = checks.boolean("exact", exact)
        kernel = self._checked_kernel(kernel)
        u, sigma, v = self._factors(kernel)
        if not exact:
            sigma = ops.cast(sv.nearest_sigma(sigma, *self._bounds()), v.dtype)
        residual = relative_residual(kernel, spectral_matrix(u, sigma, v))
        if exact and not residual <= 1e-4:
            raise ValueError(
                "The matrix was not found with so few reflectors: only the "
                "first triplets are matched, the rest is fitted. "
                f"Expected a relative residual <= 1e-4, Received: {residual} "
                f"with reflectors={self.reflectors}"
            )
        raw = self._weight_from_sigma(sigma)
        self._ensure_built()
        rescale = self.reflector_initializer.rescale
        for variable, value in (
            (self._u, rescale(ops.convert_to_numpy(u))),
            (self._v, rescale(ops.convert_to_numpy(v))),
            (self._sigma, raw),
        ):
            if variable is not None:
                variable.assign(ops.cast(value, variable.dtype))
        return residual

    def _factors(self, kernel):
        return svd_factors_from_matrix(kernel, self.reflectors)

    def _checked_kernel(self, kernel):
        kernel = checks.tensor("kernel", kernel)
        if tuple(kernel.shape) != self.shape:
            raise ValueError(
                "Argument `kernel` has the wrong shape. Expected "
                f"{self.shape}, Received: kernel.shape={tuple(kernel.shape)}"
            )
        return ops.cast(check_rank("kernel", kernel, 2), self._weight_dtype)


def relative_residual(kernel, matrix):
    """`||kernel - matrix||_F / ||kernel||_F`, as a float."""
    kernel, matrix = (
        ops.convert_to_numpy(t).astype("float64") for t in (kernel, matrix)
    )
    size = np.linalg.norm(kernel)
    return float(np.linalg.norm(kernel - matrix) / (size if size else 1.0))
