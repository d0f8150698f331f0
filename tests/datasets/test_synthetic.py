"""Tasks that are drawn, and their endless streams."""

import itertools
import math
import time

import numpy as np
import pytest

from tf_spectral.datasets import adding
from tf_spectral.datasets import adding_baseline
from tf_spectral.datasets import copying
from tf_spectral.datasets import copying_baseline
from tf_spectral.datasets import stream


@pytest.mark.parametrize("length", (2, 3, 30, 101))
def test_target_is_the_sum_of_the_two_marked_numbers(length):
    x, y = adding(50, length, seed=3)
    assert x.shape == (50, length, 2) and x.dtype == np.float32
    assert y.shape == (50, 1) and y.dtype == np.float32
    for numbers, marks, target in zip(
        x[..., 0], x[..., 1], y[:, 0], strict=True
    ):
        assert sorted(marks) == [0] * (length - 2) + [1, 1]
        assert target == numbers[marks == 1].sum()


def test_numbers_fill_the_unit_interval():
    numbers = adding(2000, 10)[0][..., 0]
    counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
    # 20,000 numbers in 10 bins: 2000 each, standard deviation 42.
    assert counts.sum() == numbers.size
    assert np.abs(counts - 2000).max() < 5 * 42


@pytest.mark.parametrize("length", (2, 3, 8, 9))
def test_each_half_holds_one_mark_at_any_of_its_steps(length):
    marks = adding(2000, length)[0][..., 1]
    first, second = np.argsort(-marks, axis=1, kind="stable")[:, :2].T
    half = length // 2
    assert set(first) == set(range(half))
    assert set(second) == set(range(half, length))


def test_baseline_is_the_error_of_always_answering_one():
    _, y = adding(100_000, 2)
    error = (y.astype("float64") - 1.0) ** 2
    assert adding_baseline() == 1 / 6
    tolerance = 5 * error.std() / len(y) ** 0.5
    assert abs(error.mean() - adding_baseline()) < tolerance


def test_seed_decides_everything_of_adding():
    x, y = adding(4, 10, seed=1)
    again = adding(4, 10, seed=1)
    other = adding(4, 10, seed=2)
    assert (x == again[0]).all() and (y == again[1]).all()
    assert (x != other[0]).any() and (y != other[1]).any()


@pytest.mark.parametrize(
    "arguments",
    (
        {"size": 0},
        {"size": 2.0},
        {"size": True},
        {"length": 1},
        {"seed": -1},
        {"seed": None},
    ),
)
def test_wrong_arguments_of_adding(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        adding(**({"size": 4, "length": 10} | arguments))


# (delay, letters, alphabet): the papers' in small, and each at its least.
TASKS = ((7, 10, 8), (3, 2, 5), (1, 10, 8), (4, 1, 8), (5, 3, 2), (1, 1, 2))


def srcd_sequence(text, delay, alphabet):
    """K letters, L blanks, a start symbol, K-1 blanks; letters at the end."""
    blank, start, count = 0, alphabet + 1, len(text)
    x = list(text) + [blank] * delay + [start] + [blank] * (count - 1)
    y = [blank] * (delay + count) + list(text)
    assert x.index(start) == count + delay
    return x, y


def spectral_rnn_sequence(text, delay, alphabet):
    """K letters, T-1 blanks, a marker at T+K (from 1), K blanks."""
    blank, marker, count = alphabet, alphabet + 1, len(text)
    x = list(text) + [blank] * (delay - 1) + [marker] + [blank] * count
    y = [blank] * (delay + count) + list(text)
    assert x.index(marker) + 1 == delay + count
    return x, y


LAYOUTS = {
    "srcd": (srcd_sequence, 1),
    "spectral_rnn": (spectral_rnn_sequence, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", TASKS)
def test_layout_equals_a_plain_loop(layout, task):
    delay, letters, alphabet = task
    make, first_letter = LAYOUTS[layout]
    x, y = copying(
        30, delay, letters, alphabet, layout=layout, one_hot=False, seed=5
    )
    assert x.shape == y.shape == (30, delay + 2 * letters)
    assert x.dtype == y.dtype == np.int32
    for codes, targets in zip(x, y, strict=True):
        text = codes[:letters]
        assert set(text) <= set(range(first_letter, first_letter + alphabet))
        expected = make(text, delay, alphabet)
        np.testing.assert_array_equal(codes, expected[0])
        np.testing.assert_array_equal(targets, expected[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_letters_are_uniform(layout):
    codes, _ = copying(1000, 1, 10, 8, layout=layout, one_hot=False)
    first_letter = LAYOUTS[layout][1]
    counts = np.bincount(codes[:, :10].ravel() - first_letter)
    # 10,000 letters, 8 of a kind: 1250 each, standard deviation 33.
    assert len(counts) == 8
    assert np.abs(counts - 1250).max() < 5 * 33


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_hot_is_the_codes(layout):
    codes, targets = copying(6, 5, layout=layout, one_hot=False, seed=2)
    x, y = copying(6, 5, layout=layout, seed=2)
    assert x.shape == (6, 25, 10) and x.dtype == np.float32
    assert set(np.unique(x)) == {0.0, 1.0} and (x.sum(axis=-1) == 1).all()
    np.testing.assert_array_equal(x.argmax(axis=-1), codes)
    np.testing.assert_array_equal(y, targets)


def test_classes_are_one_more_than_the_alphabet():
    for layout in LAYOUTS:
        _, y = copying(500, 3, layout=layout)
        assert set(np.unique(y)) == set(range(8 + 1))


def test_baseline_of_the_papers():
    assert round(copying_baseline(delay=1000), 6) == 0.020387
    assert round(copying_baseline(delay=1000, alphabet=9), 6) == 0.021541
    expected = 10 * math.log(8) / (500 + 20)
    assert copying_baseline(500, layout="spectral_rnn") == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", TASKS)
def test_baseline_is_the_loss_of_a_model_without_memory(layout, task):
    delay, letters, alphabet = task
    _, y = copying(3, delay, letters, alphabet, layout=layout)
    blank = 0 if layout == "srcd" else alphabet
    first_letter = LAYOUTS[layout][1]
    answer = np.zeros((delay + 2 * letters, alphabet + 1))
    answer[:-letters, blank] = 1.0
    answer[-letters:, first_letter : first_letter + alphabet] = 1 / alphabet
    given = np.take_along_axis(answer[None], y[..., None], axis=-1)
    np.testing.assert_allclose(
        -np.log(given).mean(),
        copying_baseline(delay, letters, alphabet, layout),
        rtol=1e-12,
    )


def test_seed_decides_everything_of_copying():
    x, y = copying(4, 10, seed=1)
    again = copying(4, 10, seed=1)
    other = copying(4, 10, seed=2)
    assert (x == again[0]).all() and (y == again[1]).all()
    assert (x != other[0]).any() and (y != other[1]).any()


@pytest.mark.parametrize(
    "arguments",
    (
        {"delay": 0},
        {"delay": 10.0},
        {"letters": 0},
        {"alphabet": 1},
        {"layout": "arjovsky"},
        {"size": 0},
        {"seed": -1},
    ),
)
def test_wrong_arguments_of_copying(arguments):
    name, value = next(iter(arguments.items()))
    message = f"`{name}`.*{name}={value!r}"
    with pytest.raises(ValueError, match=message):
        copying(**({"size": 4, "delay": 10} | arguments))
    if name not in ("size", "seed"):
        with pytest.raises(ValueError, match=message):
            copying_baseline(**({"delay": 10} | arguments))


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
