"""Stock layers of a model into spectral layers, and back."""

from tf_spectral.spectralize.models import despectralize
from tf_spectral.spectralize.models import spectralize

__all__ = ["despectralize", "spectralize"]
