"""Which pairs of rows to rotate: drawn, in turn, greedy."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles_orthogonal as oracles
from tests.helpers import evaluate
from tests.linalg.cases import normal
from tf_spectral.linalg.matching import dominant_matching
from tf_spectral.linalg.pairings import disjoint_pairs
from tf_spectral.linalg.pairings import gauss_southwell_pair
from tf_spectral.linalg.pairings import random_pairs
from tf_spectral.linalg.pairings import round_count
from tf_spectral.linalg.pairings import round_robin_pairs
from tf_spectral.linalg.pairings import uniform_pair

SIZES = (1, 2, 3, 6, 7, 32)


def scores(d, kind="normal"):
    a = normal(d, d)
    if kind == "ties":
        a = np.round(a)
    if kind == "sparse":
        a = a * (np.random.default_rng(1).random((d, d)) < 2 / d)
    if kind == "hubs":
        u = np.abs(a[0])
        return np.outer(u, u) * (1 - np.eye(d))
    return np.abs(a - a.T) * (kind != "zero")


def assert_disjoint(pairs, d):
    assert pairs.shape == (len(pairs), 2)
    assert len(set(pairs.ravel())) == 2 * len(pairs)
    assert np.all(pairs[:, 0] < pairs[:, 1])
    assert np.all((pairs >= 0) & (pairs < d))


# Drawn


@pytest.mark.parametrize("d", SIZES)
def test_random_pairs_are_disjoint(d, mode):
    pairs = evaluate(lambda: random_pairs(d, seed=1), mode=mode)
    assert len(pairs) == d // 2
    assert_disjoint(pairs, d)
    few = evaluate(lambda: random_pairs(d, seed=1, count=d // 4), mode=mode)
    assert len(few) == d // 4
    assert_disjoint(few, d)


@pytest.mark.parametrize("d", (4, 5))
def test_random_pairs_are_equally_likely(d):
    generator = keras.random.SeedGenerator(0)
    counts, draws = np.zeros((d, d)), 600
    for _ in range(draws):
        for j, l in ops.convert_to_numpy(random_pairs(d, generator)):  # noqa: E741
            counts[j, l] += 1
    share = 1 / (d - 1 if d % 2 == 0 else d)
    deviation = np.sqrt(share * (1 - share) / draws)
    upper = counts[np.triu_indices(d, 1)] / draws
    assert np.all(np.abs(upper - share) < 4 * deviation)


def test_uniform_pair_is_equally_likely():
    d, draws, counts = 4, 600, np.zeros((4, 4))
    generator = keras.random.SeedGenerator(0)
    for _ in range(draws):
        pair = ops.convert_to_numpy(uniform_pair(d, generator))
        assert_disjoint(pair, d)
        counts[tuple(pair[0])] += 1
    upper = counts[np.triu_indices(d, 1)] / draws
    assert np.all(np.abs(upper - 1 / 6) < 4 * np.sqrt(5 / 36 / draws))


def test_uniform_pair_reaches_every_row_of_two_and_of_many(mode):
    assert evaluate(lambda: uniform_pair(2, seed=3), mode=mode).tolist() == [
        [0, 1]
    ]
    assert_disjoint(evaluate(lambda: uniform_pair(46340, 3), mode=mode), 46340)


def test_the_same_seed_draws_the_same_pairs(mode):
    # In one mode: TensorFlow's generator under XLA is another one.
    for draw in (random_pairs, uniform_pair):
        first, second = (
            evaluate(lambda f=draw: f(9, seed=5), mode=mode) for _ in range(2)
        )
        assert np.array_equal(first, second)


# Round robin


@pytest.mark.parametrize("d", SIZES)
def test_round_robin_covers_every_pair_once(d):
    seen = []
    for i in range(round_count(d)):
        pairs = ops.convert_to_numpy(round_robin_pairs(d, i))
        assert len(pairs) == d // 2
        assert_disjoint(pairs, d)
        seen += [tuple(pair) for pair in pairs]
    assert sorted(seen) == oracles.all_pairs(d)


def test_round_robin_reference_values(mode):
    # math 8.
    expected = ["051423", "150234", "251304", "352401", "450312"]
    for i, digits in enumerate(expected):
        pairs = evaluate(
            lambda i: round_robin_pairs(6, i), np.int32(i), mode=mode
        )
        wanted = np.array([int(c) for c in digits]).reshape(3, 2)
        assert np.array_equal(pairs, np.sort(wanted, axis=1))


def test_rounds_go_round():
    for d in (5, 6):
        first = ops.convert_to_numpy(round_robin_pairs(d, 2))
        again = round_robin_pairs(d, 2 + 3 * round_count(d))
        assert np.array_equal(first, ops.convert_to_numpy(again))


# Greedy


@pytest.mark.parametrize("kind", ("normal", "ties", "sparse", "hubs", "zero"))
@pytest.mark.parametrize("d", (2, 3, 6, 7, 32, 150))
def test_pairs_are_the_greedy_ones(d, kind):
    matrix = scores(d, kind).astype("float32")
    pairs = evaluate(disjoint_pairs, matrix)
    assert_disjoint(pairs, d)
    assert np.array_equal(pairs, oracles.greedy_pairs(matrix))


@pytest.mark.parametrize("d", (1, 7, 130))
def test_greedy_pairs_in_every_mode(d, mode):
    matrix = scores(d)
    count = min(d // 2, 5)
    pairs = evaluate(lambda s: disjoint_pairs(s, count), matrix, mode=mode)
    assert np.array_equal(pairs, oracles.greedy_pairs(matrix)[:count])


@pytest.mark.parametrize("d", (2, 3, 7, 32))
def test_gauss_southwell_is_the_first_greedy_pair(d, mode):
    a = normal(d, d)
    best = evaluate(gauss_southwell_pair, a - a.T, mode=mode)
    pairs = evaluate(disjoint_pairs, np.abs(a - a.T), mode=mode)
    assert np.array_equal(best, pairs[:1])
    zero = evaluate(gauss_southwell_pair, np.zeros((d, d)), mode=mode)
    assert zero.tolist() == [[0, 1]]


def interleaved_chains(d):
    """Two chains of falling weights: each pair is the best once the one
    before it is gone."""
    matrix = np.zeros((d, d))
    for chain in (range(0, d - 2, 2), range(1, d - 2, 2)):
        for k, i in enumerate(chain):
            matrix[i, i + 2] = matrix[i + 2, i] = 1 / (1 + k) + 0.001 * (i % 2)
    return matrix


@pytest.mark.parametrize("d", (2, 3, 40, 131))
@pytest.mark.costly(keep=2)
def test_matrices_that_take_many_rounds(d, mode):
    u = np.sort(np.random.default_rng(d).uniform(1, 2, d))
    one_wanted = np.outer(u, u) * (1 - np.eye(d))
    for matrix in (one_wanted, interleaved_chains(d)):
        pairs = evaluate(disjoint_pairs, matrix, mode=mode)
        greedy = oracles.greedy_pairs(matrix)
        weight = matrix[pairs[:, 0], pairs[:, 1]]
        expected = matrix[greedy[:, 0], greedy[:, 1]]
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("d", (1, 2, 7, 130))
def test_not_a_number_does_not_hang(d):
    partner = evaluate(dominant_matching, np.full((d, d), np.nan))
    assert np.array_equal(partner[partner], np.arange(d))


# Refusals


@pytest.mark.parametrize(
    "f",
    (
        lambda: uniform_pair(1, 0),
        lambda: uniform_pair(46341, 0),
        lambda: random_pairs(0, 0),
        lambda: random_pairs(4, 0, count=3),
        lambda: random_pairs(4, 0, count=True),
        lambda: round_robin_pairs(2.0, 0),
        lambda: gauss_southwell_pair(np.zeros((1, 1))),
        lambda: gauss_southwell_pair(np.zeros((2, 3))),
        lambda: disjoint_pairs(np.zeros((2, 3))),
        lambda: disjoint_pairs(np.zeros((4, 4)), count=-1),
        lambda: dominant_matching(np.zeros((4, 4), "int32")),
    ),
)
def test_refuses(f):
    with pytest.raises(ValueError, match="Received"):
        f()


def test_pairs_are_int32():
    for pairs in (
        uniform_pair(4, 0),
        random_pairs(4, 0),
        round_robin_pairs(4, 0),
        disjoint_pairs(np.zeros((4, 4))),
        gauss_southwell_pair(np.zeros((4, 4))),
    ):
        assert helpers.dtype_of(pairs) == "int32"
