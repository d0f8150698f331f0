"""Images as sequences of pixels, in the usual or in a scrambled order."""

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.image_sources import load_images

DIGITS_TEST_SPLIT = 0.2


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
            `"digits"` has no use for it. Defaults to `None`.
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


def stratified_split(x, y, fraction, rng):
    """Sets part of a labelled set apart, each class by its share.

    Args:
        x: Array of shape `(n, ...)`.
        y: Integer labels of shape `(n,)`.
        fraction: Share of the examples to set apart, 0 <= fraction < 1.
        rng: A `numpy.random.Generator`.

    Returns:
        Two pairs `(x_rest, y_rest), (x_apart, y_apart)`, each in random
        order. The second one has `round(fraction * n)` examples, and from
        each class its share of them to within one.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.datasets.pixel_images import stratified_split
    >>> rng = np.random.default_rng(0)
    >>> x, y = np.arange(20), np.repeat([0, 1], 10)
    >>> rest, apart = stratified_split(x, y, 0.1, rng)
    >>> sorted(apart[1].tolist())
    [0, 1]
    """
    count = round(fraction * len(y))
    order = rng.permutation(len(y))
    by_class = order[np.argsort(y[order], kind="stable")]
    # Every (n / count)-th of the examples sorted by class, in exact integers.
    taken = np.diff(np.arange(len(y) + 1) * count // len(y)) > 0
    is_apart = np.zeros(len(y), dtype=bool)
    is_apart[by_class[taken]] = True
    apart, rest = order[is_apart[order]], order[~is_apart[order]]
    return (x[rest], y[rest]), (x[apart], y[apart])


def _to_sequences(images, order, white, pixels_per_step):
    # reshape(n, -1) is ambiguous for the empty part of validation_split=0.
    pixels = images.reshape(len(images), images.shape[1] * images.shape[2])
    x = pixels[:, order].astype("float32") / np.float32(white)
    return x.reshape(
        len(x), pixels.shape[1] // pixels_per_step, pixels_per_step
    )
