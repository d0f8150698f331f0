"""Stock layers of a model into spectral layers, and back."""

from tf_spectral.models.conversion import despectralize
from tf_spectral.models.conversion import spectralize

__all__ = ["despectralize", "spectralize"]
