"""The tasks of the papers, as NumPy arrays and as endless streams."""

from tf_spectral.datasets.extreme_classification import multilabel
from tf_spectral.datasets.language import characters
from tf_spectral.datasets.language import penn_treebank
from tf_spectral.datasets.language import stateful_batches
from tf_spectral.datasets.synthetic import adding
from tf_spectral.datasets.synthetic import adding_baseline
from tf_spectral.datasets.synthetic import copying
from tf_spectral.datasets.synthetic import copying_baseline
from tf_spectral.datasets.synthetic import stream
from tf_spectral.datasets.time_series import ucr
from tf_spectral.datasets.time_series import ucr_names
from tf_spectral.datasets.vision import images
from tf_spectral.datasets.vision import pixel_images

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
