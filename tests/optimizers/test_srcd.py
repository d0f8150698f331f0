"""SRCD against plain NumPy; which planes it turns, and that all have turns."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles_orthogonal
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.optimizers.orthogonal import DTYPE
from tests.optimizers.orthogonal import RATE
from tests.optimizers.orthogonal import TOLERANCE
from tests.optimizers.orthogonal import gradient
from tests.optimizers.orthogonal import haar
from tests.optimizers.orthogonal import one_step
from tests.optimizers.orthogonal import paper_skew
from tests.optimizers.orthogonal import variable
from tests.optimizers.stepping import stepper
from tf_spectral.constraints import Orthogonal
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD
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
        ("round", 7, [3]),
    ],
)
def test_round_sizes(block_size, d, sizes):
    assert srcd.round_sizes(block_size, d) == sizes


def test_without_a_rate_each_row_turns_once():
    optimizer = SRCD()
    assert (optimizer.selection, optimizer.block_size) == ("greedy", "round")
    assert SRCD(selection="all").block_size == 1
    r, g = haar(6), gradient(6, 6)
    moved = np.linalg.norm(one_step(optimizer, r, g) - r, axis=1)
    # The first step of Adam: each plane by the rate.
    assert_close(moved, np.full(6, 1e-3 / np.sqrt(2)), 1e-2)


def test_cyclic_forgets_no_pair():
    for d, share in itertools.product((2, 5, 6, 9), (0.01, 0.2, 0.5, 1.0)):
        sizes = srcd.round_sizes(share, d)
        seen = set()
        for step in range(4 * d * (d - 1)):
            rounds = srcd.cyclic_pairs(sizes, d, step)
            for part in map(ops.convert_to_numpy, rounds):
                assert len(np.unique(part)) == part.size
            seen |= as_set(rounds)
            if seen == all_pairs(d):
                break
        assert seen == all_pairs(d)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_cyclic_pairs_of_a_step_that_is_a_tensor(share, mode):
    sizes = srcd.round_sizes(share, 6)

    def pairs(step):
        return srcd.cyclic_pairs(sizes, 6, step)

    for step in (0, 7):
        actual = evaluate(pairs, np.int32(step), mode=mode)
        expected = [ops.convert_to_numpy(part) for part in pairs(step)]
        assert [part.tolist() for part in actual] == [
            part.tolist() for part in expected
        ]


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


def rotated(r, pairs, angles):
    """Columns of W = r^T rotated by math 3.1, one pair after another."""
    w = r.T.copy()
    for (j, l), phi in zip(pairs, angles):  # noqa: E741
        c, s = np.cos(phi), np.sin(phi)
        w[:, j], w[:, l] = (
            c * w[:, j] - s * w[:, l],
            s * w[:, j] + c * w[:, l],
        )
    return w.T


def changed_rows(before, after):
    return np.flatnonzero(np.abs(after - before).max(axis=1) > TOLERANCE)


@pytest.mark.parametrize("d", [2, 5, 8])
def test_gauss_southwell_turns_the_steepest_plane(d):
    r, g = haar(d), gradient(d, d)
    actual = one_step(SRCD(RATE, "greedy"), r, g)
    s = paper_skew(r, g)
    j, l = sorted(np.unravel_index(np.argmax(np.abs(s)), s.shape))  # noqa: E741
    expected = rotated(r, [(j, l)], [-RATE * s[j, l] / 2])
    assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("d,count", [(6, 2), (8, 4), (9, 4), (16, 3)])
def test_greedy_block(d, count):
    r, g = haar(d), gradient(d, d)
    optimizer = SRCD(RATE, "greedy", block_size=count)
    actual = one_step(optimizer, r, g)
    s = paper_skew(r, g)
    best = oracles_orthogonal.greedy_pairs(np.abs(s))[:count]
    pairs = [tuple(pair) for pair in best]
    angles = [-RATE * s[pair] / 2 for pair in pairs]
    assert_close(actual, rotated(r, pairs, angles), TOLERANCE)


def test_greedy_rounds_take_new_pairs():
    r, g = haar(9), gradient(9, 9)
    optimizer = SRCD(RATE, "greedy", block_size=10)
    actual = one_step(optimizer, r, g)
    s, expected = paper_skew(r, g), r
    left = s.copy()
    for count in (4, 4, 2):
        best = oracles_orthogonal.greedy_pairs(np.abs(left))[:count]
        for j, l in best:  # noqa: E741
            expected = rotated(expected, [(j, l)], [-RATE * left[j, l] / 2])
            left[j, l] = left[l, j] = 0.0
    assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("selection", ["random", "cyclic"])
def test_all_coordinates_agree_with_srgd_for_short_steps(selection):
    r, g = haar(7), gradient(7, 7)
    actual = one_step(SRCD(1e-4, selection, block_size=1.0), r, g)
    expected = one_step(SRGD(1e-4), r, g)
    assert_close(actual - r, expected - r, 2e-3)


def test_all_is_a_block_of_all_pairs_and_gauss_southwell_is_greedy():
    r, g = haar(6), gradient(6, 6)
    whole = one_step(SRCD(RATE, "cyclic", block_size=1.0), r, g)
    actual = one_step(SRCD(RATE, "all"), r, g)
    assert_close(actual, whole, 0.0)
    optimizer = SRCD(RATE, "gauss_southwell", block_size=2)
    assert optimizer.get_config()["selection"] == "greedy"
    named = one_step(optimizer, r, g)
    greedy = one_step(SRCD(RATE, "greedy", block_size=2), r, g)
    assert_close(named, greedy, 0.0)


def test_random_selection_turns_one_pair_and_draws_them_all():
    d = 5
    optimizer = SRCD(RATE, seed=2)
    v = variable(haar(d))
    step = stepper(optimizer, [v])
    seen = set()
    for seed in range(80):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(d, d, seed=seed)
        step([g])
        after = ops.convert_to_numpy(v)
        j, l = rows = changed_rows(before, after)  # noqa: E741
        s = paper_skew(before, g)
        expected = rotated(before, [(j, l)], [-RATE * s[j, l] / 2])
        assert_close(after, expected, 1e-6)
        seen.add(tuple(rows))
    assert len(seen) == d * (d - 1) // 2


@pytest.mark.parametrize("d", [4, 5])
def test_cyclic_covers_all_pairs_in_turn(d):
    optimizer = SRCD(RATE, "cyclic")
    v = variable(haar(d))
    step = stepper(optimizer, [v])
    seen = []
    for seed in range(d * (d - 1) // 2):
        before = ops.convert_to_numpy(v).copy()
        step([gradient(d, d, seed=seed)])
        seen.append(tuple(changed_rows(before, ops.convert_to_numpy(v))))
    assert len(set(seen)) == d * (d - 1) // 2


def test_unbiased_steps_are_the_gradient_in_the_mean():
    """Over all rounds of a tournament: the sum of coordinate steps."""
    d = 6
    r, g = haar(d), gradient(d, d)
    s = paper_skew(r, g)
    total = np.zeros((d, d))
    v = variable(r)
    step = stepper(
        SRCD(1e-5, block_size=3, coordinate_scale="unbiased", seed=0), [v]
    )
    for _ in range(200):
        v.assign(r)
        step([g])
        total += (ops.convert_to_numpy(v) - r) / 200
    expected = -1e-5 * (r.T @ s / 2).T
    error = np.linalg.norm(total - expected) / np.linalg.norm(expected)
    # d - 1 = 5 equally likely choices for each row: the mean of 200 is near.
    assert error < 0.25


def adaptive_oracle(kind, history, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    m = v = 0.0
    for a in history:
        m = beta_1 * m + (1 - beta_1) * a
        v = beta_2 * v + (1 - beta_2) * a**2
    if kind == "rmsprop":
        return history[-1] / (np.sqrt(v) + epsilon)
    count = len(history)
    root = np.sqrt(v / (1 - beta_2**count)) + epsilon
    return m / (1 - beta_1**count) / root


@pytest.mark.parametrize("selection", ["greedy", "cyclic"])
@pytest.mark.parametrize("kind", ["rmsprop", "adam"])
def test_adaptive_moments_of_one_plane(selection, kind):
    optimizer = SRCD(RATE, selection, adaptive=kind)
    r, history = haar(2), []
    v = variable(r)
    for seed in range(4):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(2, 2, seed=seed)
        optimizer.apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
        history.append(paper_skew(before, g)[0, 1] / np.sqrt(2))
        phi = -RATE / np.sqrt(2) * adaptive_oracle(kind, history)
        expected = rotated(before, [(0, 1)], [phi])
        assert_close(ops.convert_to_numpy(v), expected, 1e-6)


def test_a_schedule_lets_blocks_grow():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [0, 1], [1.0, 2.0, 4.0]
    )
    optimizer = SRCD(RATE, "cyclic", block_size=schedule)
    v = variable(haar(8))
    counts = []
    for seed in range(3):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(8, 8, seed=seed).astype(DTYPE)
        optimizer.apply([ops.convert_to_tensor(g)], [v])
        counts.append(len(changed_rows(before, ops.convert_to_numpy(v))))
    assert counts == [2, 4, 8]


def test_no_plane_turns_by_more_than_half_a_turn():
    r = haar(2)
    for size in (1e3, 1e30):
        for selection in ("greedy", "cyclic"):
            g = size * gradient(2, 2)
            assert_close(one_step(SRCD(RATE, selection), r, g), -r, 1e-6)


def test_one_row_has_nothing_to_turn():
    after = one_step(SRCD(RATE), np.ones((1, 1)), np.ones((1, 1)))
    assert after == 1.0


@pytest.mark.parametrize("selection", ["greedy", "cyclic"])
@pytest.mark.parametrize("adaptive", ["rmsprop", "adam"])
def test_moments_survive_half_precision_and_huge_gradients(adaptive, selection):
    optimizer = SRCD(0.01, selection, 2, adaptive=adaptive)
    v = keras.Variable(haar(4), dtype="float16")
    v.constraint = Orthogonal()
    for size in (0.0, 1e-6, 1.0):
        g = ops.cast(ops.convert_to_tensor(size * gradient(4, 4)), "float16")
        optimizer.apply([g], [v])
        assert np.isfinite(ops.convert_to_numpy(v)).all()
    optimizer = SRCD(0.01, selection, 2, adaptive=adaptive)
    v = keras.Variable(haar(4), dtype="float32")
    v.constraint = Orthogonal()
    huge = (1e30 * gradient(4, 4)).astype("float32")
    optimizer.apply([ops.convert_to_tensor(huge)], [v])
    assert int(ops.convert_to_numpy(optimizer.skipped_steps)) == 1
    before = ops.convert_to_numpy(v).copy()
    for _ in range(3):
        g = gradient(4, 4).astype("float32")
        optimizer.apply([ops.convert_to_tensor(g)], [v])
    assert np.abs(ops.convert_to_numpy(v) - before).max() > 1e-3


@pytest.mark.parametrize(
    "d,count",
    [(4, 1), (5, 3), (6, 4), (7, 5), (8, 3), (8, 6), (9, 6), (10, 2), (10, 12)],
)
def test_cyclic_visits_every_pair_equally_often(d, count):
    fit, rounds = d // 2, d - 1 + d % 2
    sizes = srcd.round_sizes(count, d)
    parts = -(-fit // sizes[0])
    visits = np.zeros((d, d), int)
    for step in range(rounds * fit * parts):
        for pairs in srcd.cyclic_pairs(sizes, d, step):
            pairs = ops.convert_to_numpy(pairs)
            assert len(set(pairs.ravel())) == pairs.size
            visits[pairs[:, 0], pairs[:, 1]] += 1
    assert len(set(visits[np.triu_indices(d, 1)])) == 1


def test_a_schedule_of_cyclic_blocks_forgets_no_pair():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([99], [1, 1])
    optimizer = SRCD(RATE, "cyclic", block_size=schedule)
    v, visits = variable(haar(6)), {}
    step = stepper(optimizer, [v])
    for seed in range(30):
        before = ops.convert_to_numpy(v).copy()
        step([gradient(6, 6, seed=seed)])
        pair = tuple(changed_rows(before, ops.convert_to_numpy(v)))
        visits[pair] = visits.get(pair, 0) + 1
    assert list(visits.values()) == 15 * [2]


def test_every_matrix_draws_pairs_of_its_own():
    optimizer = SRCD(0.5, seed=0)
    a, b = variable(haar(12)), variable(haar(12))
    step = stepper(optimizer, [a, b])
    same = 0
    for seed in range(12):
        g = gradient(12, 12, seed=seed)
        before = [ops.convert_to_numpy(v).copy() for v in (a, b)]
        step([g, g])
        rows = [
            tuple(changed_rows(x, ops.convert_to_numpy(v)))
            for x, v in zip(before, (a, b))
        ]
        same += rows[0] == rows[1]
    assert same < 6


def test_moments_of_a_pair_count_its_own_visits():
    """With three rows a pair is visited at every third step."""
    optimizer = SRCD(RATE, "cyclic", adaptive="adam")
    v = variable(haar(3))
    step = stepper(optimizer, [v])
    history = {}
    for seed in range(9):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(3, 3, seed=seed)
        step([g])
        after = ops.convert_to_numpy(v)
        pair = tuple(changed_rows(before, after))
        slope = paper_skew(before, g)[pair] / np.sqrt(2)
        history.setdefault(pair, []).append(slope)
        angle = -RATE / np.sqrt(2) * adaptive_oracle("adam", history[pair])
        expected = rotated(before, [pair], [angle])
        assert_close(after, expected, 1e3 * TOLERANCE)


def test_srcd_wants_square_variables_and_fitting_blocks():
    wide = variable(haar(4)[:2])
    with pytest.raises(ValueError, match=r"Expected shape \(d, d\)"):
        SRCD().build([wide])
    with pytest.raises(ValueError, match="at most 6"):
        SRCD(block_size=7).build([variable(haar(4))])


@pytest.mark.parametrize(
    "options",
    [
        {"selection": "best"},
        {"block_size": 2, "selection": "all"},
        {"adaptive": "sgd"},
        {"block_size": 0},
        {"block_size": 1.5},
        {"block_size": True},
        {"coordinate_scale": 0},
        {"coordinate_scale": "unbiased", "selection": "greedy"},
        {"beta_2": 1.0},
    ],
    ids=str,
)
def test_errors(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SRCD(**options)
