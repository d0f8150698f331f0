"""SRGD, and what SRCD shares with it, against plain NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles_orthogonal
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.optimizers.orthogonal import DTYPE
from tests.optimizers.orthogonal import RATE
from tests.optimizers.orthogonal import TOLERANCE
from tests.optimizers.orthogonal import error_of
from tests.optimizers.orthogonal import gradient
from tests.optimizers.orthogonal import haar
from tests.optimizers.orthogonal import one_step
from tests.optimizers.orthogonal import paper_skew
from tests.optimizers.orthogonal import variable
from tests.optimizers.stepping import stepper
from tf_spectral.constraints import Orthogonal
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD
from tf_spectral.optimizers import SpectralDescent


@pytest.mark.parametrize("d", [1, 2, 5, 6])
def test_srgd_follows_the_geodesic(d):
    r, g = haar(d), gradient(d, d)
    actual = one_step(SRGD(RATE), r, g)
    expected = (
        r.T @ oracles_orthogonal.skew_expm(-RATE / 2 * paper_skew(r, g))
    ).T
    assert_close(actual, expected, TOLERANCE)


def cayley(w, a):
    half, eye = a / 2, np.eye(len(a))
    return w @ np.linalg.solve(eye - half, eye + half)


def signed_qr(w, a):
    q, r = np.linalg.qr(w + w @ a)
    return q * np.sign(np.diag(r))


def nearest(w, a):
    u, _, v = np.linalg.svd(w + w @ a)
    return u @ v


@pytest.mark.parametrize(
    "retraction,oracle",
    [("cayley", cayley), ("qr", signed_qr), ("polar", nearest)],
)
def test_retractions_are_those_of_their_names(retraction, oracle):
    """All start along the geodesic; a longer step tells them apart."""
    r, g = haar(6), gradient(6, 6)
    geodesic = one_step(SRGD(1e-3), r, g)
    short = one_step(SRGD(1e-3, retraction), r, g)
    assert_close(short, geodesic, 1e-4)
    assert np.abs(geodesic - r).max() > 1e-4
    actual = one_step(SRGD(RATE, retraction), r, g)
    # The paper's W is the transpose.
    expected = oracle(r.T, -RATE / 2 * paper_skew(r, g)).T
    assert_close(actual, expected, 1e-5)
    assert np.abs(actual - one_step(SRGD(RATE), r, g)).max() > 1e-3


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others have one mode")
@pytest.mark.parametrize("make", [SRGD, SRCD])
@pytest.mark.costly
def test_a_step_under_xla_is_the_eager_one(make):
    import tensorflow as tf

    options = {"selection": "greedy", "block_size": 2} if make is SRCD else {}
    r, g = haar(4), gradient(4, 4)
    expected = one_step(make(RATE, **options), r, g)
    optimizer, v = make(RATE, **options), variable(r)
    optimizer.build([v])
    step = tf.function(
        lambda g: optimizer.apply([g], [v]), jit_compile=True, autograph=False
    )
    step(ops.convert_to_tensor(g))
    assert_close(ops.convert_to_numpy(v), expected, TOLERANCE)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
@pytest.mark.parametrize("retraction", ["expm", "cayley", "qr", "polar"])
@pytest.mark.costly(keep=2)
def test_srgd_descends_on_rectangular_variables(shape, retraction):
    target = haar(7, seed=3)[: shape[0], : shape[1]]
    start = haar(7, seed=4)[: shape[0], : shape[1]]
    v = variable(start)
    step = stepper(SRGD(0.3, retraction), [v])
    distances = []
    for _ in range(40):
        w = ops.convert_to_numpy(v)
        distances.append(np.sum((w - target) ** 2))
        step([w - target])
    assert distances[-1] < 0.5 * distances[0]
    assert np.all(np.diff(distances) < 1e-6)
    w = ops.convert_to_numpy(v)
    gram = w.T @ w if shape[0] > shape[1] else w @ w.T
    assert_close(gram, np.eye(3), 1e-6)


def test_spectral_metric_turns_every_plane_by_the_rate():
    r, g = haar(6), gradient(6, 6)
    actual = one_step(SRGD(RATE, metric="spectral"), r, g)
    turned = actual.T.T @ r.T
    angles = np.abs(np.angle(np.linalg.eigvals(turned)))
    assert_close(angles, np.full(6, RATE), 1e-4)
    # Downhill: the derivative along the step is negative.
    assert np.sum(g * (actual - r)) < 0


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_adaptive_steps_are_those_of_the_specification(scale):
    """A usual step is as long as `d // 2` turns by the rate."""
    v, w = variable(haar(6)), haar(6)
    step = stepper(SRGD(RATE, adaptive="rms"), [v])
    square = 0.0
    for i in range(4):
        g = gradient(6, 6, seed=i) * (1 + i)
        s = w @ g.T - g @ w.T
        square = 0.99 * square + 0.01 * np.sum(s**2)
        typical = np.sqrt(square / (1 - 0.99 ** (i + 1)))
        turn = RATE * np.sqrt(6) / typical * s
        w = oracles_orthogonal.skew_expm(turn) @ w
        step([scale * g])
        assert_close(ops.convert_to_numpy(v), w, TOLERANCE)


def test_adaptive_steps_of_rectangles_and_blocks_have_that_length():
    for shape, blocks, columns in (((7, 3), 1, 3), ((4, 12), 3, 12)):
        parts = [haar(shape[0], i)[:, : columns // blocks] for i in (0, 1, 2)]
        w = np.concatenate(parts[:blocks], axis=1)
        v = variable(w, blocks=blocks)
        optimizer = SRGD(1e-4, adaptive="rms")
        optimizer.apply([ops.convert_to_tensor(gradient(*shape))], [v])
        moved = np.linalg.norm(ops.convert_to_numpy(v) - w)
        assert_close(moved, 1e-4 * np.sqrt(columns), 1e-3)


def test_a_size_that_is_no_number_is_not_remembered():
    """Each entry is one, and so is their sum, but not their norm."""
    v = variable(np.eye(6))
    optimizer = SRGD(adaptive="rms")
    step = stepper(optimizer, [v])
    g = np.tril([[(-1.0) ** (i + j) for i in range(6)] for j in range(6)], -1)
    step([{"float32": 2e38, "float64": 1.2e308}[DTYPE] * g])
    assert int(ops.convert_to_numpy(optimizer.skipped_steps)) == 1
    step([g])
    assert np.abs(ops.convert_to_numpy(v) - np.eye(6)).max() > 1e-4


def test_no_gradient_is_no_step():
    v = variable(haar(3))
    step = stepper(SRGD(adaptive="rms"), [v])
    step([np.zeros((3, 3))])
    assert_close(ops.convert_to_numpy(v), haar(3), TOLERANCE)


@pytest.mark.parametrize("make", [SRGD, SRCD])
def test_nothing_has_to_be_given(make):
    config = make().get_config()
    assert np.isclose(config["learning_rate"], 1e-3)
    assert config["adaptive"]
    assert config["euclidean_optimizer"]["class_name"] == "Adam"
    assert make.from_config(config).get_config() == config
    # With a rate it is the method of the paper.
    config = make(2e-4).get_config()
    assert config["adaptive"] is config["euclidean_optimizer"] is None
    with pytest.raises(ValueError, match="`momentum`"):
        make(momentum=0.5)


def test_the_spectral_metric_has_a_size_of_its_own():
    assert SRGD(metric="spectral").adaptive is None
    with pytest.raises(ValueError, match="adaptive=None"):
        SRGD(0.1, metric="spectral", adaptive="rms")


def test_blocks_move_as_matrices_of_their_own():
    r = np.concatenate([haar(4, seed) for seed in (0, 1, 2)], axis=1)
    g = gradient(4, 12)
    v = variable(r, blocks=3)
    SRGD(RATE).apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
    actual = ops.convert_to_numpy(v)
    for i in range(3):
        part = slice(4 * i, 4 * i + 4)
        expected = one_step(SRGD(RATE), r[:, part], g[:, part])
        assert_close(actual[:, part], expected, TOLERANCE)


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
    step = stepper(optimizer, [v])
    for seed in range(60):
        step([gradient(9, 9, seed=seed)])
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
@pytest.mark.costly(keep=3)
def test_huge_gradients_leave_no_mark(optimizer):
    """A rotation by more than half a turn is noise, but is a rotation."""
    optimizer = optimizer()
    v = keras.Variable(haar(9), dtype="float32")
    v.constraint = Orthogonal()
    start = np.linalg.det(ops.convert_to_numpy(v))
    step = stepper(optimizer, [v])
    for size in (1e4, 1e8, 1e10, 1e12, 1e15, 1e18, 1e30, 1e37, 1.0, 1e-30):
        step([(size * gradient(9, 9)).astype("float32")])
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
@pytest.mark.costly
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
        step = stepper(optimizer, [v, w])
        for _ in range(12):
            g = 200 + 100 * rng.normal(size=(20, 20))
            step([g, g])
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


@pytest.mark.parametrize("dtype,every", [("float32", 1000), ("float16", 10)])
def test_corrections_come_as_often_as_the_dtype_asks(dtype, every):
    """At every thousandth step, or tenth; a scaled matrix shows which."""
    v = variable(haar(4), dtype)
    optimizer = SRGD(0.0)
    zero = np.zeros((4, 4))
    step = stepper(optimizer, [v])
    step([zero])
    for count in (every - 1, every):
        v.assign(1.02 * haar(4))
        optimizer.iterations.assign(count)
        step([zero])
        error = error_of(ops.cast(v, "float32"))
        assert (error < 0.01) == (count == every)


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


# The Euclidean optimizer


def free_variable():
    return keras.Variable(np.ones(4), dtype=DTYPE)


def mixed(optimizer, steps=3):
    """An orthogonal variable beside a free one, after some steps."""
    r, w = variable(haar(3)), free_variable()
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
    alone, w = make(), free_variable()
    for seed in range(3):
        g = ops.convert_to_tensor(gradient(4, seed=seed).astype(DTYPE))
        alone.apply([g], [w])
    assert_close(moved, ops.convert_to_numpy(w), 1e-6)


@pytest.mark.parametrize("outer", [SRGD, SRCD])
def test_without_a_given_optimizer_free_variables_move_by_sgd(outer):
    moved, _ = mixed(outer(RATE, momentum=0.9))
    alone, w = keras.optimizers.SGD(RATE, 0.9), free_variable()
    for seed in range(3):
        g = ops.convert_to_tensor(gradient(4, seed=seed).astype(DTYPE))
        alone.apply([g], [w])
    assert_close(moved, ops.convert_to_numpy(w), 1e-6)


def test_a_gradient_that_is_no_number_does_not_reach_momenta():
    """Of a free variable, which goes on as if its gradient had been zero."""
    for value in (np.nan, np.inf):
        r, w = variable(haar(3)), free_variable()
        optimizer = SRGD(RATE, euclidean_optimizer=keras.optimizers.Adam(0.1))
        alone, other = keras.optimizers.Adam(0.1), free_variable()
        for seed in range(3):
            g = gradient(4, seed=seed).astype(DTYPE)
            good = np.zeros(4, DTYPE) if seed == 1 else g
            bad = np.where(np.arange(4) == 2, value, g) if seed == 1 else g
            first = ops.zeros((3, 3), DTYPE)
            bad = ops.convert_to_tensor(bad.astype(DTYPE))
            optimizer.apply([first, bad], [r, w])
            alone.apply([ops.convert_to_tensor(good)], [other])
        assert_close(ops.convert_to_numpy(w), ops.convert_to_numpy(other), 1e-6)


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
