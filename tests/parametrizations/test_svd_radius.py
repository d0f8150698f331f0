"""A radius that is a weight: bounds move, singular values inside stay."""

import numpy as np
import pytest
from keras import ops

from tests.helpers import assert_close
from tests.helpers import evaluate
from tf_spectral.parametrizations import SVD
from tf_spectral.regularizers import SingularValues

BOUNDED = ("sigmoid", "clip")


def built(shape=(4, 4), radius=0.4, center=1.0, mode="sigmoid", **kwargs):
    svd = SVD(
        shape,
        sigma_center=center,
        sigma_radius=radius,
        sigma_mode=mode,
        annealed_radius=True,
        dtype="float64",
        **kwargs,
    )
    svd.build()
    return svd


def numpy_of(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def matrix_with(sigma):
    """A square matrix of these singular values."""
    rng = np.random.default_rng(3)
    n = len(sigma)
    u, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    return u @ np.diag(sigma) @ v


@pytest.mark.parametrize("mode", BOUNDED)
@pytest.mark.parametrize("center", [1.0, 0.0, 1.4])
def test_is_the_same_matrix_as_with_a_constant_radius(mode, center):
    options = {"sigma_center": center, "sigma_radius": 0.3, "sigma_mode": mode}
    constant = SVD((5, 3), dtype="float64", **options)
    svd = SVD((5, 3), dtype="float64", annealed_radius=True, **options)
    kernel = numpy_of(constant.matrix())
    sigma = np.abs(np.linalg.svd(kernel, compute_uv=False))
    assert_close(sigma, np.full(3, center), 1e-12, scale=1)
    for part in (constant, svd):
        part.assign_matrix(np.eye(5, 3) * (center + 0.2))
    assert_close(numpy_of(svd.matrix()), numpy_of(constant.matrix()), 1e-12)
    assert_close(numpy_of(svd.sigma()), numpy_of(constant.sigma()), 1e-12)
    assert_close(numpy_of(svd.radius()), 0.3, 1e-15)
    assert constant.radius() == 0.3


def test_only_the_asked_for_radius_is_a_weight():
    svd, constant = built(), SVD((4, 4))
    constant.build()
    assert len(svd.weights) == len(constant.weights) + 1
    assert [w.name for w in svd.non_trainable_weights] == ["sigma_radius"]
    assert len(constant.trainable_weights) == len(svd.trainable_weights) == 3


@pytest.mark.parametrize("mode", BOUNDED)
def test_values_inside_the_new_bounds_stay(mode):
    svd = built(mode=mode)
    sigma = np.array([1.05, 1.001, 0.97, 0.951])
    svd.assign_matrix(matrix_with(sigma))
    before, kernel = numpy_of(svd.sigma()), numpy_of(svd.matrix())
    for radius in (0.2, 0.06, 0.9, 0.051, 0.4):
        svd.set_radius(radius)
        assert_close(numpy_of(svd.radius()), radius, 1e-15)
        assert_close(numpy_of(svd.sigma()), before, 1e-14)
        assert_close(numpy_of(svd.matrix()), kernel, 1e-14)


@pytest.mark.parametrize("mode,edge", [("sigmoid", 0.99), ("clip", 1.0)])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_values_outside_go_to_the_bounds(mode, edge, center):
    svd = built((4, 4), center=center, mode=mode)
    svd._sigma.assign(
        {
            "sigmoid": 2 * np.arctanh([0.9, 0.5, -0.1, -0.6]),
            "clip": [0.9, 0.5, -0.1, -0.6],
        }[mode]
    )
    svd.set_radius(0.1)
    wanted = [0.1 * edge, 0.1 * edge, -0.04, -0.1 * edge]
    assert_close(numpy_of(svd.sigma()) - center, wanted, 1e-13)
    # Nothing is lost on the way back but what was cut off.
    svd.set_radius(0.4)
    assert_close(numpy_of(svd.sigma()) - center, wanted, 1e-13)


def test_values_at_the_new_bounds_can_leave_them():
    """A sigmoid has no slope at its bounds."""
    svd = built()
    svd._sigma.assign([30.0, -30.0, 5.0, 0.0])
    svd.set_radius(0.1)
    assert np.max(np.abs(numpy_of(svd._sigma))) < 6
    svd.set_radius(0.1)
    assert np.isfinite(numpy_of(svd._sigma)).all()


def test_the_same_radius_changes_no_bit():
    svd = built()
    svd._sigma.assign([30.0, -0.3, 5.0, 0.1])
    before = numpy_of(svd._sigma).copy()
    svd.set_radius(0.4)
    assert np.array_equal(numpy_of(svd._sigma), before)


def test_a_compiled_function_follows(mode):
    svd = built()
    svd._sigma.assign(np.full(4, 0.8))
    f = svd.sigma
    if mode in ("graph", "xla"):
        import tensorflow as tf

        f = tf.function(f, jit_compile=mode == "xla")
        first = numpy_of(f())
    else:
        first = evaluate(f, mode=mode)
    assert_close(first, 1 + 0.4 * np.tanh(np.full(4, 0.4)), 1e-12)
    svd.set_radius(0.2)
    second = numpy_of(f())
    assert_close(second, first, 1e-12)
    svd._sigma.assign(np.full(4, 50.0))
    assert_close(numpy_of(f()), np.full(4, 1.2), 1e-12)


def test_clip_is_a_constraint_without_the_radius():
    svd = built(mode="clip")
    svd.set_radius(0.2)
    clipped = numpy_of(svd._sigma.constraint(np.array([-3.0, 0.5, 1.0, 2.0])))
    svd._sigma.assign(clipped)
    assert_close(numpy_of(svd.sigma()), [0.8, 1.1, 1.2, 1.2], 1e-7)


@pytest.mark.parametrize("mode", BOUNDED)
def test_assignment_is_within_the_bounds_of_now(mode):
    svd = built((3, 3), mode=mode)
    kernel = matrix_with([1.3, 1.0, 0.9])
    svd.assign_matrix(kernel)
    assert_close(numpy_of(svd.matrix()), kernel, 1e-6)
    svd.set_radius(0.2)
    with pytest.raises(ValueError, match=r"0\.8.*1\.2.*1 of 3 outside"):
        svd.assign_matrix(kernel)
    svd.assign_matrix(kernel, exact=False)
    sigma = np.sort(numpy_of(svd.sigma()))
    # A sigmoid is left some room to move.
    most = 1.198 if mode == "sigmoid" else 1.2
    assert_close(sigma, [0.9, 1.0, most], 1e-5)
    edge = matrix_with([1.2, 1.2000001, 0.8])
    svd.assign_matrix(edge)
    assert_close(numpy_of(svd.matrix()), edge, 1e-5)


def test_assignment_before_the_weights_are_made():
    svd = SVD((3, 3), sigma_radius=0.4, annealed_radius=True, dtype="float64")
    kernel = matrix_with([1.3, 1.0, 0.9])
    svd.assign_matrix(kernel)
    assert_close(numpy_of(svd.matrix()), kernel, 1e-6)


def test_float32_and_half():
    for policy in ("float32", "mixed_bfloat16"):
        svd = SVD((6, 6), annealed_radius=True, dtype=policy)
        svd.build()
        svd._sigma.assign([-2.0, -1.0, -0.5, 0.0, 0.7, 3.0])
        before = numpy_of(svd.sigma()).astype("float64")
        assert {w.dtype for w in svd.weights} == {"float32"}
        svd.set_radius(0.5)
        assert_close(numpy_of(svd.sigma()), before, 2e-7)


def test_config_round_trip():
    svd = built(mode="clip")
    copy = SVD.from_config(svd.get_config())
    assert copy.annealed_radius
    assert copy.get_config() == svd.get_config()
    svd.set_radius(0.1)
    copy.build()
    copy.set_weights(svd.get_weights())
    assert_close(numpy_of(copy.radius()), 0.1, 1e-15)
    old = svd.get_config()
    del old["annealed_radius"]
    assert not SVD.from_config(old).annealed_radius


@pytest.mark.parametrize(
    "radius", [0.0, -0.1, 1.0, np.nan, np.inf, "0.1", None]
)
def test_refused_radius_leaves_the_weights(radius):
    svd = built()
    before = [numpy_of(w).copy() for w in svd.weights]
    with pytest.raises(ValueError, match="`sigma_radius`.*Received"):
        svd.set_radius(radius)
    for weight, value in zip(svd.weights, before):
        assert np.array_equal(numpy_of(weight), value)


def test_refuses_where_there_is_nothing_to_set():
    with pytest.raises(ValueError, match="annealed_radius=True.*Received"):
        SVD((2, 2)).set_radius(0.1)
    for sigma_mode in ("free", "fixed"):
        with pytest.raises(ValueError, match="`annealed_radius`.*Received"):
            SVD((2, 2), sigma_mode=sigma_mode, annealed_radius=True)


def test_penalty_of_sigma_sees_the_radius():
    svd = built((2, 2), sigma_regularizer=SingularValues(1.0, 0.0))
    svd._sigma.assign([50.0, 50.0])
    assert_close(float(sum(svd.losses)), 2 * 1.4**2, 1e-6)
