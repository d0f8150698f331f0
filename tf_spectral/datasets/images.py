"""Images with their labels, for networks that see all pixels at once."""

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.image_sources import COLOR_NAMES
from tf_spectral.datasets.image_sources import NAMES
from tf_spectral.datasets.image_sources import load_images
from tf_spectral.datasets.pixel_images import DIGITS_TEST_SPLIT
from tf_spectral.datasets.pixel_images import stratified_split

CLASSES = 10


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
        one_hot: Whether a label is an indicator vector in the place of a
            number. Defaults to `False`.
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
