"""Synthetic tasks of long memory, as arrays and as endless streams."""

import math

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.files import check_room

LAYOUTS = ("srcd", "spectral_rnn")


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


def stream(make, batch_size, seed=0, first_batch=0, **kwargs):
    """Builds an endless data set of freshly drawn batches.

    Batch number i depends on `seed` and i only. A training that was stopped
    after k batches therefore goes on with just the batches it would have
    seen, if it is given `first_batch=k`.

    Each number gets a seed of its own (from
    `numpy.random.SeedSequence(seed, spawn_key=(i,))`), so the batches are
    independent of each other, of the streams of other seeds, and of what
    `make` draws from `seed` itself: `make(size, seed=0)` is a fair validation
    set for `stream(make, batch_size, seed=0)`.

    Args:
        make: `tf_spectral.datasets.adding`, `tf_spectral.datasets.copying`,
            or another function `make(size, seed=..., **kwargs)` that returns
            a NumPy array or a tuple of them, of shape `(size, ...)`.
        batch_size: Positive integer.
        seed: Non-negative integer. Defaults to `0`.
        first_batch: Number of the batch to begin with, a non-negative
            integer. Defaults to `0`.
        **kwargs: The other arguments of `make`, such as `length=100`.

    Returns:
        An infinite `tf.data.Dataset` of batches with static shapes. Keras
        takes it on all backends; `fit` needs `steps_per_epoch`. A batch is
        drawn when it is asked for, in about 2 ms for 128 sequences of 1020
        steps. Do not add `prefetch`: a Python process that exits while a
        thread draws the next batch may hang.

    Raises:
        ValueError: If an argument is out of its range, also one of `make`.
        ImportError: If TensorFlow is not installed.

    Example:

    >>> import keras
    >>> from tf_spectral.datasets import adding
    >>> from tf_spectral.datasets import stream
    >>> batches = stream(adding, batch_size=32, length=10)
    >>> model = keras.Sequential([keras.layers.LSTM(4), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> history = model.fit(
    ...     batches, epochs=2, steps_per_epoch=5, shuffle=False, verbose=0
    ... )
    """
    make = checks.function("make", make)
    batch_size = checks.integer("batch_size", batch_size, minimum=1)
    seed = checks.integer("seed", seed, minimum=0)
    first_batch = checks.integer("first_batch", first_batch, minimum=0)
    import tensorflow as tf

    def draw(number):
        sequence = np.random.SeedSequence(seed, spawn_key=(number,))
        batch_seed = int(sequence.generate_state(1, dtype="uint64")[0])
        return make(batch_size, seed=batch_seed, **kwargs)

    # Drawing one batch here reports a wrong argument at once, not in `fit`.
    example = draw(first_batch)
    dtypes = [array.dtype for array in tf.nest.flatten(example)]

    def to_tensors(number):
        flat = tf.numpy_function(
            lambda number: tf.nest.flatten(draw(number)), [number], dtypes
        )
        for tensor, array in zip(flat, tf.nest.flatten(example), strict=True):
            tensor.set_shape(array.shape)
        return tf.nest.pack_sequence_as(example, flat)

    # No prefetch, not even the one that TensorFlow adds by itself: Python hangs
    # at exit, every few runs, if a thread is just then drawing a batch.
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    batches = tf.data.Dataset.counter(start=first_batch).map(to_tensors)
    return batches.with_options(options)
