"""Labelled images, as they come from the packages that hold them."""

import importlib
import os
import pathlib

from tf_spectral import checks
from tf_spectral.datasets.files import to_path

TFDS_NAMES = ("mnist", "fashion_mnist")
NAMES = ("digits",) + TFDS_NAMES
COLOR_NAMES = ("cifar10", "svhn_cropped")


def load_images(name, data_dir=None, names=NAMES):
    """Loads a set of labelled images.

    The 1797 `"digits"` of 8 x 8 grey pixels come with scikit-learn. The sets
    `"mnist"` and `"fashion_mnist"`, 28 x 28 and grey, and `"cifar10"` and
    `"svhn_cropped"`, 32 x 32 and coloured, come from TensorFlow Datasets,
    which looks for them

    1.  in `data_dir`, if it is given; nothing is downloaded then,
    2.  in the folder `tensorflow_datasets` of the folder that the environment
        variable `TF_SPECTRAL_DATA` names, if the set is there,
    3.  in its own default folder, to which it downloads the set if need be.

    Args:
        name: One of `names`.
        data_dir: A folder of TensorFlow Datasets, the one that holds the
            folder `<name>/<version>`. `"digits"` has no use for it. Defaults
            to `None`.
        names: Tuple of the names that the caller can deal with. Defaults to
            `NAMES`, the grey ones.

    Returns:
        A pair of pairs `(train_images, train_labels), (test_images,
        test_labels)` of `uint8` arrays of shape `(n, rows, columns)`, or
        `(n, rows, columns, 3)` for the coloured sets, and `int32` arrays of
        shape `(n,)`. The images of `"digits"` are 0 to 16, have no test part,
        and the second pair is `None` for them.

    Raises:
        ValueError: If `name` is not known or `data_dir` does not hold it.
        ImportError: If the package with the set is not installed.

    Example:

    >>> from tf_spectral.datasets.image_sources import load_images
    >>> (images, labels), _ = load_images("digits")
    >>> images.shape
    (1797, 8, 8)
    """
    name = checks.choice("name", name, names)
    if name == "digits":
        return _load_digits(), None
    folder, download = _resolve_folder(name, data_dir)
    tfds = _import("tensorflow_datasets", "tensorflow-datasets")
    try:
        parts = tfds.as_numpy(
            tfds.load(
                name,
                split=["train", "test"],
                data_dir=folder,
                download=download,
                batch_size=-1,
                as_supervised=True,
            )
        )
    except Exception as error:
        if folder is None:
            raise
        raise ValueError(
            f"{folder}: expected {name!r} as TensorFlow Datasets stores it, "
            f"Received: {error}"
        ) from error
    train, test = (
        (_without_grey_axis(images), labels.astype("int32"))
        for images, labels in parts
    )
    return train, test


def _without_grey_axis(images):
    return images[..., 0] if images.shape[-1] == 1 else images


def _load_digits():
    bunch = _import("sklearn.datasets", "scikit-learn").load_digits()
    return bunch.images.astype("uint8"), bunch.target.astype("int32")


def _resolve_folder(name, data_dir):
    if data_dir is not None:
        data_dir = to_path("data_dir", data_dir)
        if not _holds(data_dir, name):
            raise ValueError(
                "Argument `data_dir` must be a folder of TensorFlow Datasets "
                f"that holds {name!r}. Expected a file "
                f"{name}/<version>/dataset_info.json in it, "
                f"Received: data_dir={str(data_dir)!r}"
            )
        return os.fspath(data_dir), False
    shared = os.environ.get("TF_SPECTRAL_DATA")
    if shared:
        folder = pathlib.Path(shared).expanduser() / "tensorflow_datasets"
        if _holds(folder, name):
            return os.fspath(folder), False
    return None, True


def _holds(folder, name):
    folder = pathlib.Path(folder)
    try:
        return any(folder.glob(f"{name}/*/dataset_info.json"))
    except OSError:
        return False


def _import(module, package):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This data set needs the package `{package}`. Install it with "
            f"`pip install {package}`."
        ) from error
