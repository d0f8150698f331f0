"""The copying memory task: repeat some letters after a long delay."""

import math

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.arrays import check_room

LAYOUTS = ("srcd", "spectral_rnn")


def copying(
    size,
    delay,
    letters=10,
    alphabet=8,
    layout="srcd",
    one_hot=True,
    seed=0,
):
    """Draws sequences of the copying memory task.

    A sequence shows `letters` letters, drawn uniformly, then only blanks and
    one marker. The target is blank at all steps but the last `letters` ones,
    where it is the letters again, in their order. A sequence has
    `delay + 2 * letters` steps in both layouts, the first of which has the
    number 0 here; with K letters, a delay L and an alphabet of A letters:

    |                      | `"srcd"`         | `"spectral_rnn"`     |
    |----------------------|------------------|----------------------|
    | blanks before marker | L                | L - 1                |
    | step of the marker   | K + L            | K + L - 1            |
    | blanks after it      | K - 1            | K                    |
    | steps to answer at   | K + L .. 2K+L-1  | K + L .. 2K+L-1      |
    | first answer         | with the marker  | right after it       |
    | codes of the letters | 1 .. A           | 0 .. A - 1           |
    | code of the blank    | 0                | A                    |
    | code of the marker   | A + 1            | A + 1                |
    | target elsewhere     | 0, the blank     | A, the blank         |

    In both layouts the input has `alphabet + 2` codes and the target
    `alphabet + 1` classes, since the marker is never an answer.

    Args:
        size: Number of sequences, a positive integer.
        delay: Positive integer, L above. The SRCD paper calls it L and takes
            1000; the Spectral-RNN paper calls it T.
        letters: Number of letters to remember, a positive integer, K above.
            Defaults to `10`.
        alphabet: Number of different letters, an integer of at least 2, A
            above. Defaults to `8`.
        layout: `"srcd"` or `"spectral_rnn"`, the paper whose layout to
            follow. Defaults to `"srcd"`.
        one_hot: Whether `x` is one-hot. If `False`, `x` holds the codes, for
            a model that starts with `keras.layers.Embedding`. Defaults to
            `True`.
        seed: Non-negative integer. The same seed gives the same arrays.
            Defaults to `0`.

    Returns:
        A tuple `(x, y)` of NumPy arrays: `x` of shape
        `(size, delay + 2 * letters, alphabet + 2)`, `float32`, or without
        `one_hot` of shape `(size, delay + 2 * letters)`, `int32`; `y` of shape
        `(size, delay + 2 * letters)`, `int32`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> import tf_spectral
    >>> x, y = tf_spectral.datasets.copying(size=128, delay=1000)
    >>> x.shape, y.shape
    ((128, 1020, 10), (128, 1020))

    References:

    - [Massart and Abrol, 2022](https://arxiv.org/abs/2108.00051), section 3
      (SRCD).
    - [Zhang et al., 2018](https://arxiv.org/abs/1803.09327), section 7.1
      (Spectral-RNN).
    """
    size = checks.integer("size", size, minimum=1)
    delay, letters, alphabet, layout = _check_task(
        delay, letters, alphabet, layout
    )
    one_hot = checks.boolean("one_hot", one_hot)
    shape = (size, delay + 2 * letters, alphabet + 2 if one_hot else 2)
    check_room("Arguments `size`, `delay`, `letters` and `alphabet`", shape)
    # `stream` draws seeds of 64 bits.
    seed = checks.integer("seed", seed, minimum=0, maximum=2**64 - 1)
    blank, first_letter, marker_step = (
        (0, 1, letters + delay)
        if layout == "srcd"
        else (alphabet, 0, letters + delay - 1)
    )
    rng = np.random.default_rng(seed)
    text = first_letter + rng.integers(alphabet, size=(size, letters))
    x = np.full((size, delay + 2 * letters), blank, dtype="int32")
    y = x.copy()
    x[:, :letters] = text
    x[:, marker_step] = alphabet + 1
    y[:, -letters:] = text
    if one_hot:
        # `take` is several times faster than indexing by an array.
        x = np.eye(alphabet + 2, dtype="float32").take(x, axis=0)
    return x, y


def copying_baseline(delay, letters=10, alphabet=8, layout="srcd"):
    """Mean cross-entropy of the best answer without memory.

    A model that has forgotten the letters, but counts the steps, knows for
    sure that the blank is due (no loss) at all but the last K steps, and there
    does best by giving the same probability 1/A to each letter, a loss of
    `ln A` nats. The mean over the `L + 2K` steps of the sequence is

        K ln(A) / (L + 2K)

    Args:
        delay: Positive integer, L above.
        letters: Positive integer, K above. Defaults to `10`.
        alphabet: Integer of at least 2, A above. Defaults to `8`.
        layout: `"srcd"` or `"spectral_rnn"`. The layouts have as many steps
            and as many answers as each other, and so the same baseline.
            Defaults to `"srcd"`.

    Returns:
        A float, in nats.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> import tf_spectral
    >>> round(tf_spectral.datasets.copying_baseline(delay=1000), 6)
    0.020387

    Reference:

    - [Massart and Abrol, 2022](https://arxiv.org/abs/2108.00051), section 3.
    """
    delay, letters, alphabet, _ = _check_task(delay, letters, alphabet, layout)
    return letters * math.log(alphabet) / (delay + 2 * letters)


def _check_task(delay, letters, alphabet, layout):
    return (
        checks.integer("delay", delay, minimum=1),
        checks.integer("letters", letters, minimum=1),
        checks.integer("alphabet", alphabet, minimum=2),
        checks.choice("layout", layout, LAYOUTS),
    )
