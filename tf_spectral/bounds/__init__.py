"""What the theory promises, as numbers."""

from tf_spectral.bounds.layerwise import LayerwiseSmoothness

__all__ = ["LayerwiseSmoothness"]
