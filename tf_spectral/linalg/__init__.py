"""Pure functions of tensors, which own no variables.

Products are written with `@`: `keras.ops.matmul` rounds float64 to float32 on
PyTorch.
"""

from tf_spectral.linalg import exponential
from tf_spectral.linalg import factorization
from tf_spectral.linalg import givens
from tf_spectral.linalg import householder
from tf_spectral.linalg import matching
from tf_spectral.linalg import norms
from tf_spectral.linalg import orthogonal
from tf_spectral.linalg import pairings
from tf_spectral.linalg import polar
from tf_spectral.linalg import retractions
from tf_spectral.linalg import spectral

__all__ = [
    "exponential",
    "factorization",
    "givens",
    "householder",
    "matching",
    "norms",
    "orthogonal",
    "pairings",
    "polar",
    "retractions",
    "spectral",
]
