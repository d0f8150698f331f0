"""The tasks of the papers, as NumPy arrays and as endless streams."""

from tf_spectral.datasets.adding import adding
from tf_spectral.datasets.adding import adding_baseline
from tf_spectral.datasets.copying import copying
from tf_spectral.datasets.copying import copying_baseline
from tf_spectral.datasets.images import images
from tf_spectral.datasets.language import characters
from tf_spectral.datasets.language import penn_treebank
from tf_spectral.datasets.language import stateful_batches
from tf_spectral.datasets.multilabel import multilabel
from tf_spectral.datasets.pixel_images import pixel_images
from tf_spectral.datasets.stream import stream
from tf_spectral.datasets.ucr import ucr
from tf_spectral.datasets.ucr import ucr_names

__all__ = [
    "adding",
    "adding_baseline",
    "characters",
    "copying",
    "copying_baseline",
    "images",
    "multilabel",
    "penn_treebank",
    "pixel_images",
    "stateful_batches",
    "stream",
    "ucr",
    "ucr_names",
]
