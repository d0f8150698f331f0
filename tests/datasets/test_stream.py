"""Streams: each batch a function of the seed and its number alone."""

import itertools
import time

import numpy as np
import pytest

from tf_spectral.datasets import adding
from tf_spectral.datasets import copying
from tf_spectral.datasets import stream

tf = pytest.importorskip("tensorflow")


def take(count, *args, **kwargs):
    batches = stream(*args, **kwargs).as_numpy_iterator()
    return list(itertools.islice(batches, count))


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_stopped_training_finds_the_batches_it_would_have_seen():
    whole = take(7, adding, 3, seed=4, length=5)
    rest = take(4, adding, 3, seed=4, first_batch=3, length=5)
    assert_equal(whole[3:], rest)


def test_starting_over_gives_the_same_batches():
    batches = stream(copying, 2, delay=4).take(3)
    assert_equal(
        list(batches.as_numpy_iterator()), list(batches.as_numpy_iterator())
    )


def test_batches_of_other_numbers_and_seeds_differ():
    batches = take(4, adding, 3, seed=0, length=50)
    batches += take(4, adding, 3, seed=1, length=50)
    # A validation set drawn from the stream's own seed is not its batch 0.
    batches.append(adding(3, 50, seed=0))
    seen = {x.tobytes() for x, _ in batches}
    assert len(seen) == len(batches)


@pytest.mark.parametrize(
    "make, kwargs, shapes, dtypes",
    (
        (adding, {"length": 7}, ((3, 7, 2), (3, 1)), ("float32", "float32")),
        (copying, {"delay": 4}, ((3, 24, 10), (3, 24)), ("float32", "int32")),
        (
            copying,
            {"delay": 4, "one_hot": False},
            ((3, 24), (3, 24)),
            ("int32", "int32"),
        ),
    ),
)
def test_shapes_are_static(make, kwargs, shapes, dtypes):
    batches = stream(make, 3, **kwargs)
    assert tuple(s.shape for s in batches.element_spec) == shapes
    assert tuple(s.dtype.name for s in batches.element_spec) == dtypes
    first = next(batches.as_numpy_iterator())
    assert tuple(array.shape for array in first) == shapes
    assert tuple(array.dtype.name for array in first) == dtypes


def test_a_function_of_the_user():
    def make(size, seed, low):
        return np.random.default_rng(seed).integers(low, low + 9, (size, 2))

    batches = stream(make, 3, low=100)
    first = next(batches.as_numpy_iterator())
    assert first.shape == (3, 2) and (first >= 100).all()


def test_stream_has_no_end():
    batches = stream(adding, 2, length=5)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY


def test_no_batch_is_drawn_ahead():
    # By a thread that is drawing when Python exits: the process then hangs.
    drawn = []

    def make(size, seed):
        drawn.append(seed)
        return adding(size, 5, seed=seed)

    batches = iter(stream(make, 2))
    drawn.clear()
    next(batches)
    time.sleep(0.2)
    assert len(drawn) == 1


@pytest.mark.parametrize(
    "arguments",
    ({"batch_size": 0}, {"seed": -1}, {"first_batch": -1}, {"length": 1}),
)
def test_wrong_arguments_are_reported_at_once(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        stream(adding, **({"batch_size": 4, "length": 10} | arguments))


def test_unknown_arguments_are_reported_at_once():
    with pytest.raises(TypeError, match="delay"):
        stream(adding, 4, length=10, delay=3)
    for make in (None, 2, "adding"):
        with pytest.raises(ValueError, match="`make` must be callable"):
            stream(make, 4)
