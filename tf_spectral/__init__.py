"""Spectral and orthogonal networks for Keras."""

from tf_spectral import bounds
from tf_spectral import callbacks
from tf_spectral import constraints
from tf_spectral import datasets
from tf_spectral import export
from tf_spectral import initializers
from tf_spectral import layers
from tf_spectral import linalg
from tf_spectral import losses
from tf_spectral import metrics
from tf_spectral import models
from tf_spectral import optimizers
from tf_spectral import parametrizations
from tf_spectral import plotting
from tf_spectral import regularizers
from tf_spectral.models import despectralize
from tf_spectral.models import spectralize
from tf_spectral.version import __version__

__all__ = [
    "__version__",
    "bounds",
    "callbacks",
    "constraints",
    "datasets",
    "despectralize",
    "export",
    "initializers",
    "layers",
    "linalg",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "parametrizations",
    "plotting",
    "regularizers",
    "spectralize",
]
