"""Bounds that hold given singular values."""

import numpy as np
import pytest

from tests.helpers import assert_close
from tf_spectral.parametrizations.singular_values import bounds_that_hold
from tf_spectral.parametrizations.singular_values import check_sigma
from tf_spectral.parametrizations.singular_values import weight_from_sigma


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
