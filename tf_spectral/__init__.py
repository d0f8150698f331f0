"""Spectral and orthogonal networks for Keras."""

from tf_spectral import initializers
from tf_spectral import layers
from tf_spectral import linalg
from tf_spectral import parametrizations

__version__ = "0.1.0.dev0"
