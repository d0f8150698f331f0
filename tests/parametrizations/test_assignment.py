"""From a matrix to weights: the nearest fit, and bounds that hold."""

import numpy as np
import pytest
from keras import ops

from tests.helpers import assert_close
from tf_spectral.parametrizations import SVD
from tf_spectral.parametrizations.singular_values import bounds_that_hold
from tf_spectral.parametrizations.singular_values import check_sigma
from tf_spectral.parametrizations.singular_values import weight_from_sigma


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def numpy_of(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def relative(kernel, svd):
    error = np.linalg.norm(kernel - numpy_of(svd.matrix()))
    return error / np.linalg.norm(kernel)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 6), (6, 3)])
def test_residual_of_an_exact_assignment_is_rounding(shape):
    svd = SVD(shape, sigma_mode="free", dtype="float64")
    assert svd.assign_matrix(normal(*shape)) < 1e-12


def test_fit_within_narrow_bounds_is_the_nearest():
    """Mirsky: no matrix with sigma in the bounds is closer than this one."""
    kernel = normal(5, 4)
    svd = SVD((5, 4), sigma_radius=0.25, sigma_mode="clip", dtype="float64")
    residual = svd.assign_matrix(kernel, exact=False)
    sigma = np.linalg.svd(kernel, compute_uv=False)
    nearest = np.linalg.norm(sigma - np.clip(sigma, 0.75, 1.25))
    assert_close(residual, nearest / np.linalg.norm(kernel), 1e-6)
    assert_close(relative(kernel, svd), residual, 1e-6)


@pytest.mark.parametrize("sigma_mode", ["sigmoid", "clip", "free", "fixed"])
def test_fit_with_few_reflectors(sigma_mode):
    kernel = normal(6, 6)
    svd = SVD((6, 6), 2, 1.0, 0.5, sigma_mode, dtype="float64")
    residual = svd.assign_matrix(kernel, exact=False)
    assert 0.01 < residual < 1.5
    assert_close(relative(kernel, svd), residual, 1e-6)


def test_a_sigmoid_is_left_room_to_move():
    svd = SVD((3, 3), sigma_radius=0.5, dtype="float64")
    svd.assign_matrix(np.diag([0.0, 1.2, 9.0]), exact=False)
    sigma = np.sort(ops.convert_to_numpy(svd.sigma()))
    assert_close(sigma, [0.505, 1.2, 1.495], 1e-9)


def test_residual_of_a_zero_matrix_is_absolute():
    svd = SVD((3, 3), sigma_radius=0.5, sigma_mode="clip", dtype="float64")
    # All three singular values stop at 0.5.
    residual = svd.assign_matrix(np.zeros((3, 3)), exact=False)
    assert_close(residual, 0.5 * np.sqrt(3), 1e-5)


@pytest.mark.parametrize(
    "sigma",
    [
        [1.0],
        [0.0],
        [1.0, 1.0],
        [0.9, 1.0, 1.2],
        [0.01, 1.0],
        [0.0, 1e-3],
        [1e-12, 1e5],
        [-1.0, 2.0],
        [-3.0, -1.0],
    ],
)
@pytest.mark.parametrize("center", [None, 1.0, 2.5, 0.0])
def test_bounds_hold_with_room(sigma, center):
    sigma = np.array(sigma)
    c, r = bounds_that_hold(sigma, center)
    check_sigma("sigmoid", c, r)
    assert np.max(np.abs(sigma - c)) <= r / 1.05
    assert c in (0.0, center) or center is None
    raw = weight_from_sigma(sigma, "sigmoid", c, r)
    assert_close(c + r * np.tanh(raw / 2), sigma, 1e-12, scale=r)
    # Not so near to a bound that a gradient would be lost.
    assert np.max(np.abs(raw)) < 4


def test_bounds_are_not_wider_than_of_use():
    assert bounds_that_hold([0.9, 1.1]) == pytest.approx((1.0, 0.11))
    assert bounds_that_hold([1.0, 1.0]) == pytest.approx((1.0, 0.01))
    assert bounds_that_hold([0.1, 1.1]) == pytest.approx((0.6, 0.55))
    assert bounds_that_hold([0.01, 1.0]) == pytest.approx((0.0, 1.1))


def test_error_says_which_bounds_would_do():
    svd = SVD((3, 3), sigma_radius=0.1)
    kernel = np.diag([0.5, 1.0, 1.2]).astype("float32")
    with pytest.raises(ValueError, match="2 of 3 outside") as error:
        svd.assign_matrix(kernel)
    words = str(error.value).replace(",", "").replace("=", " ").split()
    center, radius = (
        float(words[words.index(name) + 1])
        for name in ("sigma_center", "sigma_radius")
    )
    wide = SVD((3, 3), sigma_center=center, sigma_radius=radius)
    assert wide.assign_matrix(kernel) < 1e-5
