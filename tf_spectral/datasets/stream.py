"""Endless freshly drawn batches that a killed training can take up again."""

import numpy as np

from tf_spectral import checks


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
