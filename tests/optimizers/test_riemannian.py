"""SRGD and SRCD against plain NumPy in the orientation of the paper."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles_orthogonal
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.constraints import Orthogonal
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD
from tf_spectral.optimizers import SpectralDescent
from tf_spectral.optimizers import srcd

DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}[DTYPE]
RATE = 0.125  # exact in float32


def haar(d, seed=0):
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def variable(value, dtype=DTYPE, blocks=1):
    v = keras.Variable(np.asarray(value), dtype=dtype, name="r")
    v.constraint = Orthogonal(blocks)
    return v


def gradient(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def steps(optimizer, r, gradients):
    """The values of a variable `r` after each step."""
    v = variable(r)
    values = []
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
        values.append(ops.convert_to_numpy(v).copy())
    return values


def paper_skew(r, g):
    """S of math 3.1, for W = r^T and the gradient g^T."""
    return oracles_orthogonal.skew_gradient(r.T, g.T)


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


@pytest.mark.parametrize("d", [1, 2, 5, 6])
def test_srgd_follows_the_geodesic(d):
    r, g = haar(d), gradient(d, d)
    (actual,) = steps(SRGD(RATE), r, [g])
    expected = (
        r.T @ oracles_orthogonal.skew_expm(-RATE / 2 * paper_skew(r, g))
    ).T
    assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("retraction", ["cayley", "qr", "polar"])
def test_retractions_agree_for_short_steps(retraction):
    r, g = haar(6), gradient(6, 6)
    (geodesic,) = steps(SRGD(1e-3), r, [g])
    (actual,) = steps(SRGD(1e-3, retraction), r, [g])
    assert_close(actual, geodesic, 1e-4)
    assert np.abs(geodesic - r).max() > 1e-4


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
@pytest.mark.parametrize("retraction", ["expm", "cayley", "qr", "polar"])
def test_srgd_descends_on_rectangular_variables(shape, retraction):
    target = haar(7, seed=3)[: shape[0], : shape[1]]
    start = haar(7, seed=4)[: shape[0], : shape[1]]
    v = variable(start)
    optimizer = SRGD(0.3, retraction)
    distances = []
    for _ in range(40):
        w = ops.convert_to_numpy(v)
        distances.append(np.sum((w - target) ** 2))
        slope = ops.convert_to_tensor((w - target).astype(DTYPE))
        optimizer.apply([slope], [v])
    assert distances[-1] < 0.5 * distances[0]
    assert np.all(np.diff(distances) < 1e-6)
    w = ops.convert_to_numpy(v)
    gram = w.T @ w if shape[0] > shape[1] else w @ w.T
    assert_close(gram, np.eye(3), 1e-6)


def test_spectral_metric_turns_every_plane_by_the_rate():
    r, g = haar(6), gradient(6, 6)
    (actual,) = steps(SRGD(RATE, metric="spectral"), r, [g])
    turned = actual.T.T @ r.T
    angles = np.abs(np.angle(np.linalg.eigvals(turned)))
    assert_close(angles, np.full(6, RATE), 1e-4)
    # Downhill: the derivative along the step is negative.
    assert np.sum(g * (actual - r)) < 0


def test_blocks_move_as_matrices_of_their_own():
    r = np.concatenate([haar(4, seed) for seed in (0, 1, 2)], axis=1)
    g = gradient(4, 12)
    v = variable(r, blocks=3)
    SRGD(RATE).apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
    actual = ops.convert_to_numpy(v)
    for i in range(3):
        part = slice(4 * i, 4 * i + 4)
        (expected,) = steps(SRGD(RATE), r[:, part], [g[:, part]])
        assert_close(actual[:, part], expected, TOLERANCE)


@pytest.mark.parametrize("d", [2, 5, 8])
def test_gauss_southwell_turns_the_steepest_plane(d):
    r, g = haar(d), gradient(d, d)
    (actual,) = steps(SRCD(RATE, "greedy"), r, [g])
    s = paper_skew(r, g)
    j, l = sorted(np.unravel_index(np.argmax(np.abs(s)), s.shape))  # noqa: E741
    expected = rotated(r, [(j, l)], [-RATE * s[j, l] / 2])
    assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("d,count", [(6, 2), (8, 4), (9, 4), (16, 3)])
def test_greedy_block(d, count):
    r, g = haar(d), gradient(d, d)
    optimizer = SRCD(RATE, "greedy", block_size=count)
    (actual,) = steps(optimizer, r, [g])
    s = paper_skew(r, g)
    best = oracles_orthogonal.greedy_pairs(np.abs(s))[:count]
    pairs = [tuple(pair) for pair in best]
    angles = [-RATE * s[pair] / 2 for pair in pairs]
    assert_close(actual, rotated(r, pairs, angles), TOLERANCE)


def test_greedy_rounds_take_new_pairs():
    r, g = haar(9), gradient(9, 9)
    optimizer = SRCD(RATE, "greedy", block_size=10)
    (actual,) = steps(optimizer, r, [g])
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
    (actual,) = steps(SRCD(1e-4, selection, block_size=1.0), r, [g])
    (expected,) = steps(SRGD(1e-4), r, [g])
    assert_close(actual - r, expected - r, 2e-3)


def test_all_is_a_block_of_all_pairs_and_gauss_southwell_is_greedy():
    r, g = haar(6), gradient(6, 6)
    (whole,) = steps(SRCD(RATE, "cyclic", block_size=1.0), r, [g])
    (actual,) = steps(SRCD(RATE, "all"), r, [g])
    assert_close(actual, whole, 0.0)
    optimizer = SRCD(RATE, "gauss_southwell", block_size=2)
    assert optimizer.get_config()["selection"] == "greedy"
    (named,) = steps(optimizer, r, [g])
    (greedy,) = steps(SRCD(RATE, "greedy", block_size=2), r, [g])
    assert_close(named, greedy, 0.0)


def test_random_selection_turns_one_pair_and_draws_them_all():
    d = 5
    optimizer = SRCD(RATE, seed=2)
    v = variable(haar(d))
    seen = set()
    for seed in range(80):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(d, d, seed=seed)
        optimizer.apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
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
    seen = []
    for seed in range(d * (d - 1) // 2):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(d, d, seed=seed)
        optimizer.apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
        seen.append(tuple(changed_rows(before, ops.convert_to_numpy(v))))
    assert len(set(seen)) == d * (d - 1) // 2


def test_unbiased_steps_are_the_gradient_in_the_mean():
    """Over all rounds of a tournament: the sum of coordinate steps."""
    d = 6
    r, g = haar(d), gradient(d, d)
    s = paper_skew(r, g)
    total = np.zeros((d, d))
    for seed in range(200):
        optimizer = SRCD(
            1e-5, block_size=3, coordinate_scale="unbiased", seed=seed
        )
        (after,) = steps(optimizer, r, [g])
        total += (after - r) / 200
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


@pytest.mark.parametrize(
    "optimizer",
    [
        SRGD(RATE),
        SRCD(RATE, block_size=1.0),
        SRCD(RATE, "greedy", block_size=4, adaptive="adam"),
    ],
    ids=["srgd", "random", "greedy"],
)
def test_orthogonality_and_determinant_are_kept(optimizer):
    r = haar(9)
    v = variable(r, "float32")
    for seed in range(60):
        g = gradient(9, 9, seed=seed).astype("float32")
        optimizer.apply([ops.convert_to_tensor(g)], [v])
    w = ops.convert_to_numpy(v).astype("float64")
    assert np.linalg.norm(w.T @ w - np.eye(9), 2) < 1e-5
    assert np.sign(np.linalg.det(w)) == np.sign(np.linalg.det(r))


def test_a_start_off_the_manifold_is_projected_with_a_warning():
    r = haar(4)
    v = variable(3.0 * r)
    with pytest.warns(UserWarning, match="does not start orthogonal"):
        SRGD(0.0).apply([ops.zeros((4, 4), DTYPE)], [v])
    assert_close(ops.convert_to_numpy(v), r, 1e-5)


@pytest.mark.parametrize("shape", [(40, 40), (40, 9), (9, 40)])
def test_a_start_that_is_off_in_one_direction_is_noticed(shape):
    r = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    r = r[: shape[0], : shape[1]]
    u, s, v = np.linalg.svd(r, full_matrices=False)
    s[-1] += 1e-3
    with pytest.warns(UserWarning, match="does not start orthogonal.*2.0e-03"):
        SRGD(0.0).build([variable((u * s) @ v)])


def test_one_row_has_nothing_to_turn():
    (after,) = steps(SRCD(RATE), np.ones((1, 1)), [np.ones((1, 1))])
    assert after == 1.0


def test_a_correction_removes_what_rounding_left():
    optimizer = SRCD(RATE, correction_period=2)
    v = variable(haar(4))
    zero = ops.zeros((4, 4), DTYPE)
    optimizer.apply([zero], [v])
    v.assign(ops.convert_to_numpy(v) * 1.001)
    optimizer.apply([zero], [v])
    w = ops.convert_to_numpy(v)
    assert np.linalg.norm(w.T @ w - np.eye(4), 2) > 1e-3
    optimizer.apply([zero], [v])
    w = ops.convert_to_numpy(v)
    assert np.linalg.norm(w.T @ w - np.eye(4), 2) < 1e-5


def test_average_weights_are_orthogonal_again():
    optimizer = SRGD(RATE, use_ema=True, ema_momentum=0.5)
    v = variable(haar(5))
    for seed in range(4):
        g = gradient(5, 5, seed=seed).astype(DTYPE)
        optimizer.apply([ops.convert_to_tensor(g)], [v])
    optimizer.finalize_variable_values([v])
    w = ops.convert_to_numpy(v)
    assert_close(w.T @ w, np.eye(5), 1e-5)


def error_of(w):
    w = ops.convert_to_numpy(w).astype("float64")
    w = w if w.shape[0] >= w.shape[1] else w.T
    return np.linalg.norm(w.T @ w - np.eye(w.shape[1]), 2)


@pytest.mark.parametrize(
    "optimizer",
    [
        *(lambda r=r: SRGD(0.1, r) for r in ("expm", "cayley", "qr", "polar")),
        lambda: SRGD(0.1, metric="spectral"),
        lambda: SRGD(1e6),
        lambda: SRCD(0.1, block_size=1.0, seed=0),
        lambda: SRCD(0.1, "greedy", block_size=4, adaptive="adam"),
    ],
)
def test_huge_gradients_leave_no_mark(optimizer):
    """A rotation by more than half a turn is noise, but is a rotation."""
    optimizer = optimizer()
    v = keras.Variable(haar(9), dtype="float32")
    v.constraint = Orthogonal()
    start = np.linalg.det(ops.convert_to_numpy(v))
    for size in (1e4, 1e8, 1e10, 1e12, 1e15, 1e18, 1e30, 1e37, 1.0, 1e-30):
        g = (size * gradient(9, 9)).astype("float32")
        optimizer.apply([ops.convert_to_tensor(g)], [v])
        assert error_of(v) < 2e-5, size
    assert np.linalg.det(ops.convert_to_numpy(v)) * start > 0


@pytest.mark.parametrize("make", [SRGD, SRCD])
def test_a_rate_that_is_no_number_is_not_written(make):
    """A derivative of zero times an infinite rate is no angle."""
    for rate in (np.inf, np.nan):
        optimizer = make(lambda rate=rate: rate)
        v = variable(haar(4))
        for _ in range(2):
            optimizer.apply([ops.zeros((4, 4), DTYPE)], [v])
        assert error_of(v) < 1e-5
        assert int(ops.convert_to_numpy(optimizer.skipped_steps)) == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_moves_and_stays_orthogonal(dtype):
    """The sum of a common gradient overflows in float16; rounding adds up."""
    for optimizer in (
        SRGD(0.1),
        SRCD(0.1, "greedy", block_size=10),
    ):
        v = keras.Variable(haar(20), dtype=dtype)
        v.constraint = Orthogonal()
        w = keras.Variable(np.zeros((20, 20)), dtype=dtype)
        start = ops.convert_to_numpy(ops.cast(v, "float32"))
        rng = np.random.default_rng(0)
        # JAX compiles anew what is not within a compiled step.
        for _ in range(2 if BACKEND == "jax" else 12):
            g = ops.cast(200 + 100 * rng.normal(size=(20, 20)), dtype)
            optimizer.apply([g, g], [v, w])
        assert int(ops.convert_to_numpy(optimizer.skipped_steps)) == 0
        assert (
            float(np.abs(ops.convert_to_numpy(ops.cast(w, "float32"))).max())
            > 10
        )
        assert (
            error_of(ops.cast(v, "float32"))
            < {
                "float16": 4e-3,
                "bfloat16": 3e-2,
            }[dtype]
        )
        moved = ops.convert_to_numpy(ops.cast(v, "float32")) - start
        assert np.abs(moved).max() > 0.1


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_huge_gradients_of_rectangular_variables(shape):
    for retraction in ("expm", "cayley", "qr", "polar"):
        v = keras.Variable(haar(7)[: shape[0], : shape[1]], dtype="float32")
        v.constraint = Orthogonal()
        optimizer = SRGD(0.1, retraction)
        for size in (1e8, 1e15, 1e30):
            g = (size * gradient(*shape)).astype("float32")
            optimizer.apply([ops.convert_to_tensor(g)], [v])
            assert error_of(v) < 2e-5, (retraction, size)


def test_a_step_that_leaves_the_manifold_is_not_taken(monkeypatch):
    """Whatever a retraction gives: orthogonality is tested, not finiteness."""
    from tf_spectral.optimizers import riemannian

    monkeypatch.setattr(
        riemannian, "retract_skew", lambda w, a, method: 1.1 * w
    )
    optimizer = SRGD(0.1)
    v = variable(haar(5))
    before = ops.convert_to_numpy(v).copy()
    optimizer.apply([ops.convert_to_tensor(gradient(5, 5).astype(DTYPE))], [v])
    assert_close(ops.convert_to_numpy(v), before, 1e-6)
    assert int(ops.convert_to_numpy(optimizer.skipped_steps)) == 1


def test_a_correction_from_afar_projects():
    """The cubic step alone would diverge from here."""
    optimizer = SRGD(0.0, correction_period=2)
    v = variable(haar(4))
    zero = ops.zeros((4, 4), DTYPE)
    for _ in range(2):
        optimizer.apply([zero], [v])
    v.assign(ops.convert_to_numpy(v) * 3.0)
    optimizer.apply([zero], [v])
    assert error_of(v) < 1e-5


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
    for seed in range(30):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(6, 6, seed=seed).astype(DTYPE)
        optimizer.apply([ops.convert_to_tensor(g)], [v])
        pair = tuple(changed_rows(before, ops.convert_to_numpy(v)))
        visits[pair] = visits.get(pair, 0) + 1
    assert list(visits.values()) == 15 * [2]


def test_every_matrix_draws_pairs_of_its_own():
    optimizer = SRCD(0.5, seed=0)
    a, b = variable(haar(12)), variable(haar(12))
    same = 0
    for seed in range(12):
        g = ops.convert_to_tensor(gradient(12, 12, seed=seed).astype(DTYPE))
        before = [ops.convert_to_numpy(v).copy() for v in (a, b)]
        optimizer.apply([g, g], [a, b])
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
    history = {}
    for seed in range(9):
        before = ops.convert_to_numpy(v).copy()
        g = gradient(3, 3, seed=seed)
        optimizer.apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
        after = ops.convert_to_numpy(v)
        pair = tuple(changed_rows(before, after))
        slope = paper_skew(before, g)[pair] / np.sqrt(2)
        history.setdefault(pair, []).append(slope)
        angle = -RATE / np.sqrt(2) * adaptive_oracle("adam", history[pair])
        expected = rotated(before, [pair], [angle])
        assert_close(after, expected, 1e3 * TOLERANCE)


# The Euclidean optimizer


def mixed(optimizer, steps=3):
    """An orthogonal variable beside a free one, after some steps."""
    r, w = variable(haar(3)), keras.Variable(np.ones(4), dtype=DTYPE)
    for seed in range(steps):
        gradients = [gradient(3, 3, seed=seed), gradient(4, seed=seed)]
        optimizer.apply(
            [ops.convert_to_tensor(g.astype(DTYPE)) for g in gradients], [r, w]
        )
    return ops.convert_to_numpy(w), optimizer


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1),
        lambda: keras.optimizers.SGD(0.1, weight_decay=0.1),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
        lambda: keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.01])
        ),
    ],
)
@pytest.mark.parametrize("outer", [SRGD, SRCD])
def test_free_variables_move_as_under_the_given_optimizer_alone(outer, make):
    moved, _ = mixed(outer(RATE, euclidean_optimizer=make()))
    alone, w = make(), keras.Variable(np.ones(4), dtype=DTYPE)
    for seed in range(3):
        g = ops.convert_to_tensor(gradient(4, seed=seed).astype(DTYPE))
        alone.apply([g], [w])
    assert_close(moved, ops.convert_to_numpy(w), 1e-6)


@pytest.mark.parametrize("outer", [SRGD, SRCD])
def test_weights_of_the_optimizer_include_the_euclidean_ones(outer):
    _, optimizer = mixed(outer(RATE, euclidean_optimizer="adam"))
    values = [ops.convert_to_numpy(v) for v in optimizer.variables]
    again = outer(RATE, euclidean_optimizer="adam")
    with pytest.raises(ValueError, match="built"):
        again.set_weights(values)
    mixed(again, steps=1)
    again.set_weights(values)
    for a, b in zip(again.variables, values):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), b)
    with pytest.raises(ValueError, match="Expected arrays of the shapes"):
        again.set_weights(values[:-1])


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="newer Keras"
)
def test_weights_of_a_wrapper_include_the_euclidean_ones():
    r, w = variable(haar(3)), keras.Variable(np.ones(4), dtype=DTYPE)
    other = keras.Variable(np.ones(2), dtype=DTYPE)
    runs = []
    for _ in range(2):
        ours = SRGD(RATE, euclidean_optimizer="adam")
        plain = keras.optimizers.Adam()
        wrapper = keras.optimizers.MultiOptimizer(
            lambda v, ours=ours, plain=plain: plain if v is other else ours
        )
        wrapper.build([r, other, w])
        runs.append(wrapper)
    g = [ops.ones(v.shape, DTYPE) for v in (r, other, w)]
    runs[0].apply(g, [r, other, w])
    values = [ops.convert_to_numpy(v) for v in runs[0].variables]
    runs[1].set_weights(values)
    assert len(runs[1].variables) == len(values) > 10
    for a, b in zip(runs[1].variables, values):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), b)


def test_euclidean_optimizers_that_cannot_be_used():
    wrapped = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    for inner in (wrapped, DSGD(), SpectralDescent()):
        with pytest.raises(ValueError, match="euclidean_optimizer"):
            SRGD(euclidean_optimizer=inner)
    used = keras.optimizers.Adam()
    mixed(SRGD(euclidean_optimizer=used))
    with pytest.raises(ValueError, match="used for another model"):
        mixed(SRGD(euclidean_optimizer=used))


@pytest.mark.parametrize(
    "make,match",
    [
        (lambda: SRGD(retraction="exp"), "retraction"),
        (lambda: SRGD(metric="canonical"), "metric"),
        (lambda: SRCD(selection="best"), "selection"),
        (lambda: SRCD(selection="all", block_size=2), "block_size"),
        (lambda: SRCD(adaptive="sgd"), "adaptive"),
        (lambda: SRCD(block_size=0), "block_size"),
        (lambda: SRCD(block_size=1.5), "block_size"),
        (lambda: SRCD(block_size=True), "block_size"),
        (lambda: SRCD(coordinate_scale=0), "coordinate_scale"),
        (
            lambda: SRCD(selection="greedy", coordinate_scale="unbiased"),
            "unbiased",
        ),
        (lambda: SRCD(beta_2=1.0), "beta_2"),
        (lambda: SRGD(correction_period=0), "correction_period"),
        (lambda: SRGD(euclidean_optimizer="nadam"), "Nadam"),
        (lambda: SRGD(euclidean_optimizer="adam", momentum=0.9), "momentum"),
        (
            lambda: SRGD(
                euclidean_optimizer=keras.optimizers.Adam(clipnorm=1.0)
            ),
            "clipnorm",
        ),
    ],
)
def test_errors(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_nothing_to_keep_orthogonal():
    for optimizer in (SRGD(), SRCD()):
        with pytest.raises(ValueError, match="nothing to keep orthogonal"):
            optimizer.build([keras.Variable(np.eye(3))])


def test_srcd_wants_square_variables_and_fitting_blocks():
    wide = variable(haar(4)[:2])
    with pytest.raises(ValueError, match=r"Expected shape \(d, d\)"):
        SRCD().build([wide])
    with pytest.raises(ValueError, match="at most 6"):
        SRCD(block_size=7).build([variable(haar(4))])
