"""The adding task: remember two marked numbers, return their sum."""

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.arrays import check_room


def adding(size, length, seed=0):
    """Draws sequences of the adding task.

    At each step a sequence shows a number, uniform in [0, 1), and a mark.
    Exactly two steps are marked by 1, all others by 0, and the target is the
    sum of the two marked numbers. As in the experiments that the papers
    repeat, the first mark falls uniformly into the first `length // 2` steps
    and the second one uniformly into the rest.

    Args:
        size: Number of sequences, a positive integer.
        length: Number of time steps, an integer of at least 2.
        seed: Non-negative integer. The same seed gives the same arrays.
            Defaults to `0`.

    Returns:
        A tuple `(x, y)` of `float32` NumPy arrays: `x` of shape
        `(size, length, 2)`, where `x[..., 0]` are the numbers and
        `x[..., 1]` the marks, and `y` of shape `(size, 1)`.

    Raises:
        ValueError: If `size`, `length` or `seed` is out of its range.

    Example:

    >>> import tf_spectral
    >>> x, y = tf_spectral.datasets.adding(size=1000, length=100)
    >>> x.shape, y.shape
    ((1000, 100, 2), (1000, 1))

    Reference:

    - [Zhang et al., 2018](https://arxiv.org/abs/1803.09327), section 7.1,
      "with the same settings as"
      [Arjovsky et al., 2016](https://arxiv.org/abs/1511.06464).
    """
    size = checks.integer("size", size, minimum=1)
    length = checks.integer("length", length, minimum=2)
    # `stream` draws seeds of 64 bits.
    seed = checks.integer("seed", seed, minimum=0, maximum=2**64 - 1)
    check_room("Arguments `size` and `length`", (size, length, 2))
    rng = np.random.default_rng(seed)
    numbers = rng.random((size, length), dtype="float32")
    first = rng.integers(0, length // 2, size)
    second = rng.integers(length // 2, length, size)
    row = np.arange(size)
    marks = np.zeros_like(numbers)
    marks[row, first] = 1.0
    marks[row, second] = 1.0
    total = numbers[row, first] + numbers[row, second]
    return np.stack([numbers, marks], axis=-1), total[:, np.newaxis]


def adding_baseline():
    """Mean squared error of the best answer without memory.

    The target is the sum of two independent numbers that are uniform in
    [0, 1). Its mean is `2 * 1/2 = 1`, its variance `2 * 1/12 = 1/6`. A model
    that does not look at the sequence does best by always answering the mean,
    and its squared error is then the variance.

    Returns:
        The float `1 / 6`, about 0.167.

    Example:

    >>> from tf_spectral.datasets import adding
    >>> from tf_spectral.datasets import adding_baseline
    >>> x, y = adding(size=10000, length=2)
    >>> bool(abs(((y - 1.0) ** 2).mean() - adding_baseline()) < 0.01)
    True

    Reference:

    - [Zhang et al., 2018](https://arxiv.org/abs/1803.09327), section 7.1.
    """
    return 1.0 / 6.0
