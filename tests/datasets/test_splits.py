"""Parts that are set apart: sizes, shares of the classes, random order."""

import numpy as np
import pytest

from tf_spectral.datasets.splits import random_split
from tf_spectral.datasets.splits import stratified_split

SPLITS = (stratified_split, random_split)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "size,fraction,apart",
    [(50, 0.2, 10), (7, 0.5, 4), (9, 0.0, 0), (1, 0.9, 1)],
)
def test_each_example_is_in_one_part(split, size, fraction, apart):
    x, y = np.arange(size), np.arange(size) % 3
    rest, other = split(x, y, fraction, np.random.default_rng(0))
    assert len(other[0]) == apart
    together = np.concatenate([rest[0], other[0]])
    np.testing.assert_array_equal(np.sort(together), x)
    for part_x, part_y in (rest, other):
        np.testing.assert_array_equal(part_y, part_x % 3)


@pytest.mark.parametrize("split", SPLITS)
def test_both_parts_are_in_random_order(split):
    """Neither as they came nor by class: a batch of a part is like another."""
    x = np.arange(400)
    y = np.repeat([0, 1], 200)
    for part_x, part_y in split(x, y, 0.5, np.random.default_rng(0)):
        # Of a random order half of the steps rise, give or take 0.04 (2 sd).
        assert abs(np.mean(np.diff(part_x) > 0) - 0.5) < 0.15
        assert abs(part_y[:100].mean() - 0.5) < 0.2


def test_each_class_keeps_its_share():
    y = np.repeat([0, 1, 2], [5, 40, 55])
    _, apart = stratified_split(y, y, 0.2, np.random.default_rng(1))
    counts = np.bincount(apart[1], minlength=3)
    assert np.abs(counts - [1, 8, 11]).max() <= 1 and counts.sum() == 20


@pytest.mark.parametrize("split", SPLITS)
def test_the_generator_decides(split):
    x = np.arange(30)
    one, other, third = (
        split(x, x % 2, 0.3, np.random.default_rng(seed))[1][0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, other)
    assert sorted(one) != sorted(third)
