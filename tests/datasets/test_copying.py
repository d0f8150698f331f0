"""The copying memory task against its definition in math.md 3.7."""

import math

import numpy as np
import pytest

from tf_spectral.datasets import copying
from tf_spectral.datasets import copying_baseline

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


def test_seed_decides_everything():
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
def test_wrong_arguments(arguments):
    name, value = next(iter(arguments.items()))
    message = f"`{name}`.*{name}={value!r}"
    with pytest.raises(ValueError, match=message):
        copying(**({"size": 4, "delay": 10} | arguments))
    if name not in ("size", "seed"):
        with pytest.raises(ValueError, match=message):
            copying_baseline(**({"delay": 10} | arguments))
