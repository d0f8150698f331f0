"""The adding task against its definition in math.md 3.7."""

import numpy as np
import pytest

from tf_spectral.datasets import adding
from tf_spectral.datasets import adding_baseline


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


def test_seed_decides_everything():
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
def test_wrong_arguments(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        adding(**({"size": 4, "length": 10} | arguments))
