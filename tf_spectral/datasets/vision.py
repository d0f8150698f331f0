"""Labelled images: whole, or as sequences of pixels."""

import importlib
import os
import pathlib

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.files import to_path
from tf_spectral.datasets.splits import stratified_split

TFDS_NAMES = ("mnist", "fashion_mnist")
NAMES = ("digits",) + TFDS_NAMES
COLOR_NAMES = ("cifar10", "svhn_cropped")
CLASSES = 10
DIGITS_TEST_SPLIT = 0.2


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
            folder `<name>/<version>`. Ignored for `"digits"`. Defaults to
            `None`.
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

    >>> from tf_spectral.datasets.vision import load_images
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


def images(
    name="digits",
    flatten=True,
    one_hot=False,
    validation_split=1 / 6,
    seed=0,
    data_dir=None,
):
    """Loads images with their labels, split into three parts.

    | `name`            | image       | train  | validation | test   |
    |-------------------|-------------|--------|------------|--------|
    | `"digits"`        | 8 x 8       | 1198   | 240        | 359    |
    | `"mnist"`         | 28 x 28     | 50,000 | 10,000     | 10,000 |
    | `"fashion_mnist"` | 28 x 28     | 50,000 | 10,000     | 10,000 |
    | `"cifar10"`       | 32 x 32 x 3 | 41,667 | 8,333      | 10,000 |
    | `"svhn_cropped"`  | 32 x 32 x 3 | 61,047 | 12,210     | 26,032 |

    The sizes are those of `validation_split=1/6`. The validation set is drawn
    from the training images so that each class keeps its share. The test sets
    are the standard ones. scikit-learn's digits have none, and a fifth of
    them is set apart in the same stratified way, again by `seed`.

    Args:
        name: One of the above. `"digits"` come with scikit-learn, the others
            from TensorFlow Datasets. Defaults to `"digits"`.
        flatten: Whether an image is a vector of its pixels, row by row, each
            pixel with its colours. Defaults to `True`.
        one_hot: Whether labels are one-hot rows rather than class ids.
            Defaults to `False`.
        validation_split: Share of the training images that is set apart, at
            least 0 and below 1. With 0 the validation arrays are empty.
            Defaults to `1/6`.
        seed: Non-negative integer, for the splits. Defaults to `0`.
        data_dir: Folder of TensorFlow Datasets that holds the set, as for
            `tf_spectral.datasets.pixel_images`. Defaults to `None`.

    Returns:
        Three pairs `(x_train, y_train), (x_val, y_val), (x_test, y_test)` of
        NumPy arrays: `x` of shape `(n, pixels)`, or `(n, rows, columns,
        colours)` if not `flatten`, `float32` in [0, 1]; `y` of shape `(n,)`,
        `int32` in 0 .. 9, or `(n, 10)`, `float32`, if `one_hot`.

    Raises:
        ValueError: If an argument is out of its range, or `data_dir` does not
            hold the set.
        ImportError: If the package with the set is not installed.

    Example:

    >>> import tf_spectral
    >>> train, val, test = tf_spectral.datasets.images("digits")
    >>> train[0].shape
    (1198, 64)

    Reference: Flynn, "The duality structure gradient descent algorithm:
    analysis and applications to neural networks", 2017, section 5.
    """
    flatten = checks.boolean("flatten", flatten)
    one_hot = checks.boolean("one_hot", one_hot)
    seed = checks.integer("seed", seed, minimum=0)
    validation_split = checks.fraction("validation_split", validation_split)
    train, test = load_images(name, data_dir, NAMES + COLOR_NAMES)
    rng = np.random.default_rng(seed)
    if test is None:
        train, test = stratified_split(*train, DIGITS_TEST_SPLIT, rng)
    train, val = stratified_split(*train, validation_split, rng)
    white = 16 if name == "digits" else 255
    return tuple(
        (_scale(x, white, flatten), _encode(y, one_hot))
        for x, y in (train, val, test)
    )


def _scale(x, white, flatten):
    colors = x.shape[3] if x.ndim == 4 else 1
    shape = (len(x), *x.shape[1:3], colors)
    if flatten:
        shape = (len(x), x.shape[1] * x.shape[2] * colors)
    # In place: the coloured sets are large.
    x = x.astype("float32").reshape(shape)
    x /= np.float32(white)
    return x


def _encode(y, one_hot):
    return np.eye(CLASSES, dtype="float32")[y] if one_hot else y


def pixel_images(
    name="digits",
    permute=False,
    validation_split=0.1,
    seed=0,
    data_dir=None,
    pixels_per_step=1,
):
    """Loads images as sequences of pixels, with their labels.

    An image is read row by row, from the top left. The task, pixel-MNIST, is
    to tell the class after the last pixel; `permute=True` makes it harder by
    scrambling the pixels of all images in the same way.

    | `name`            | steps | train  | validation | test   |
    |-------------------|-------|--------|------------|--------|
    | `"digits"`        | 64    | 1294   | 144        | 359    |
    | `"mnist"`         | 784   | 54,000 | 6,000      | 10,000 |
    | `"fashion_mnist"` | 784   | 54,000 | 6,000      | 10,000 |

    The sizes are those of `validation_split=0.1`. The validation set is drawn
    from the training images so that each class keeps its share. The test sets
    of MNIST and Fashion-MNIST are the standard ones. scikit-learn's digits
    have none, and a fifth of them is set apart in the same stratified way,
    again by `seed`.

    Args:
        name: `"digits"` (8 x 8, scikit-learn, nothing to download),
            `"mnist"` or `"fashion_mnist"` (28 x 28, TensorFlow Datasets).
            Defaults to `"digits"`.
        permute: Whether to put the pixels into one random order, the same
            for all images of all three parts, that depends on `seed` alone.
            Defaults to `False`.
        validation_split: Share of the training images that is set apart, at
            least 0 and below 1. With 0 the validation arrays are empty.
            Defaults to `0.1`.
        seed: Non-negative integer, for the splits and the order of pixels.
            Defaults to `0`.
        data_dir: Folder of TensorFlow Datasets that holds the set as
            `<name>/<version>`; nothing is downloaded then. `None` takes the
            folder `tensorflow_datasets` in the folder that the environment
            variable `TF_SPECTRAL_DATA` names, if the set is there, and
            else TensorFlow Datasets' own folder, with a download if need be.
            Ignored for `"digits"`. Defaults to `None`.
        pixels_per_step: Number of successive pixels that a step shows, a
            divisor of the number of pixels: 2 makes MNIST sequences of 392
            steps, 28 shows a row at a time. Defaults to `1`.

    Returns:
        Three pairs `(x_train, y_train), (x_val, y_val), (x_test, y_test)` of
        NumPy arrays: `x` of shape `(n, pixels / pixels_per_step,
        pixels_per_step)`, `float32` in [0, 1], and `y` of shape `(n,)`,
        `int32` in 0 .. 9.

    Raises:
        ValueError: If an argument is out of its range, or `data_dir` does not
            hold the set.
        ImportError: If the package with the set is not installed.

    Example:

    >>> import tf_spectral
    >>> train, val, test = tf_spectral.datasets.pixel_images("digits")
    >>> train[0].shape
    (1294, 64, 1)

    Reference:

    - [Zhang et al., 2018](https://arxiv.org/abs/1803.09327), section 7.2 and
      figure 3.
    """
    permute = checks.boolean("permute", permute)
    seed = checks.integer("seed", seed, minimum=0)
    pixels_per_step = checks.integer(
        "pixels_per_step", pixels_per_step, minimum=1
    )
    validation_split = checks.fraction("validation_split", validation_split)
    images, test = load_images(name, data_dir)
    pixels = images[0][0].size
    if pixels % pixels_per_step:
        raise ValueError(
            "Argument `pixels_per_step` must divide the number of pixels. "
            f"Expected a divisor of {pixels}, "
            f"Received: pixels_per_step={pixels_per_step}"
        )
    split_rng, order_rng = np.random.default_rng(seed).spawn(2)
    if test is None:
        images, test = stratified_split(*images, DIGITS_TEST_SPLIT, split_rng)
    train, val = stratified_split(*images, validation_split, split_rng)
    order = order_rng.permutation(pixels) if permute else slice(None)
    white = 16 if name == "digits" else 255
    return tuple(
        (_to_sequences(x, order, white, pixels_per_step), y)
        for x, y in (train, val, test)
    )


def _to_sequences(images, order, white, pixels_per_step):
    # reshape(n, -1) is ambiguous for the empty part of validation_split=0.
    pixels = images.reshape(len(images), images.shape[1] * images.shape[2])
    x = pixels[:, order].astype("float32") / np.float32(white)
    return x.reshape(
        len(x), pixels.shape[1] // pixels_per_step, pixels_per_step
    )
