"""Which planes a step turns: sizes of rounds, and that no pair is forgotten."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import evaluate
from tf_spectral.optimizers import srcd


def as_set(rounds):
    return {tuple(pair) for pairs in rounds for pair in np.asarray(pairs)}


def all_pairs(d):
    return {(j, l) for j in range(d) for l in range(j + 1, d)}  # noqa: E741


@pytest.mark.parametrize(
    "block_size,d,sizes",
    [
        (1, 6, [1]),
        (3, 6, [3]),
        (4, 6, [3, 1]),
        (15, 6, [3] * 5),
        (1.0, 7, [3] * 7),
        (0.01, 6, [1]),
        (0.005, 190, [90]),
        (keras.optimizers.schedules.CosineDecay(1.0, 9), 7, [3]),
    ],
)
def test_round_sizes(block_size, d, sizes):
    assert srcd.round_sizes(block_size, d) == sizes


@pytest.mark.parametrize("d", [2, 5, 6, 9])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
def test_cyclic_forgets_no_pair(d, share, mode):
    sizes = srcd.round_sizes(share, d)

    def pairs(step):
        return srcd.cyclic_pairs(sizes, d, step)

    seen = set()
    for step in range(4 * d * (d - 1)):
        rounds = evaluate(pairs, np.int32(step), mode=mode)
        for part in rounds:
            assert len(np.unique(part)) == part.size
        seen |= as_set(rounds)
        if seen == all_pairs(d):
            break
    assert seen == all_pairs(d)


def test_a_last_round_in_part_takes_other_pairs_in_its_turn():
    # Nine rounds, three a step: the third is always in part.
    sizes = [4, 4, 1]
    steps = [srcd.cyclic_pairs(sizes, 9, step) for step in range(12)]
    assert set.union(*map(as_set, steps)) == all_pairs(9)


@pytest.mark.parametrize("d", [2, 5, 8])
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_drawn_pairs_are_all_different(d, share):
    sizes = srcd.round_sizes(share, d)
    rounds = srcd.drawn_pairs(sizes, d, keras.random.SeedGenerator(1))
    rounds = [ops.convert_to_numpy(pairs) for pairs in rounds]
    assert [len(pairs) for pairs in rounds] == sizes
    assert len(as_set(rounds)) == sum(sizes)
    assert as_set(rounds) <= all_pairs(d)
