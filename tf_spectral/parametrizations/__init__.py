"""Raw weights that give a matrix: Keras layers that own variables."""

from tf_spectral.parametrizations.orthogonal import Orthogonal
from tf_spectral.parametrizations.svd import SVD

__all__ = ["SVD", "Orthogonal"]
