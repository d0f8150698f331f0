"""The tasks of the papers, as NumPy arrays and as endless streams."""

from tf_spectral.datasets.adding import adding
from tf_spectral.datasets.adding import adding_baseline
from tf_spectral.datasets.copying import copying
from tf_spectral.datasets.copying import copying_baseline
from tf_spectral.datasets.images import images
from tf_spectral.datasets.pixel_images import pixel_images
from tf_spectral.datasets.stream import stream

__all__ = [
    "adding",
    "adding_baseline",
    "copying",
    "copying_baseline",
    "images",
    "pixel_images",
    "stream",
]
