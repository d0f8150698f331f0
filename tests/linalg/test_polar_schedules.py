"""Schedules of the polar factor, half precision and refused arguments."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles_norms as oracles
from tests.helpers import assert_close
from tf_spectral.linalg.polar import _iterates_on_gram
from tf_spectral.linalg.polar import nuclear_norm
from tf_spectral.linalg.polar import polar_and_nuclear
from tf_spectral.linalg.polar import polar_factor
from tf_spectral.linalg.polar_schedules import FAST
from tf_spectral.linalg.polar_schedules import HIGH
from tf_spectral.linalg.polar_schedules import STANDARD

ACCURACIES = ("high", "standard", "fast")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


SCHEDULES = {"high": HIGH, "standard": STANDARD, "fast": FAST}
S = np.concatenate([np.geomspace(1e-7, 1, 100_001), np.linspace(0, 1, 100_001)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_at_most_one_and_close_to_it(name):
    schedule = SCHEDULES[name]
    image = oracles.composition(S, schedule)
    assert np.max(image) <= (1.0 + 1e-15 if name == "high" else 1 - 0.99e-4)
    assert np.min(image) >= 0.0
    lowest = np.min(image[S >= schedule.low])
    error = {"high": 2.2e-6, "standard": 2e-3, "fast": 0.041, "basis": 2e-4}
    assert lowest >= 1 - error[name]


@pytest.mark.parametrize("name", ("standard", "fast"))
def test_every_step_is_minimax_and_fits_the_next(name):
    """Chebyshev: the error alternates once more than there are unknowns."""
    expected = None
    for stage in SCHEDULES[name].stages:
        for i, step in enumerate(stage):
            s = np.linspace(step.low, step.high, 200_001)
            error = oracles.odd_polynomial(s, step.coefficients) - 1
            size = np.max(np.abs(error))
            extremes = error[np.abs(error) >= (1 - 1e-3) * size]
            alternations = 1 + np.sum(np.diff(np.sign(extremes)) != 0)
            assert alternations >= len(step.coefficients) + 1
            if expected is not None:
                assert step.low <= (1 - expected) * (1 + 1e-3)
                # Room for rounding: more where a stage starts, unless its
                # predecessor is close to one already.
                room = 0.02 if i == 0 and expected > 1e-3 else 9e-4
                assert step.high >= (1 + expected) * (1 + 0.99 * room)
            expected = size
    assert 1 + expected <= SCHEDULES[name].peak


def test_where_the_gram_matrix_is_cheaper():
    assert not _iterates_on_gram(300, 300, 2)
    assert not _iterates_on_gram(450, 300, 2)
    assert _iterates_on_gram(784, 300, 2)
    assert not _iterates_on_gram(784, 300, 1)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_half_precision_is_computed_in_float32(accuracy, dtype):
    x = ops.cast(normal(12, 8), dtype)
    q, nu = polar_and_nuclear(x, accuracy=accuracy)
    assert helpers.dtype_of(q) == dtype
    assert helpers.dtype_of(nu) == "float32"
    exact = ops.convert_to_numpy(ops.cast(x, "float32"))
    expected, norm = polar_and_nuclear(exact, accuracy=accuracy)
    # Shortened by what the rounding of eight singular vectors may add.
    room = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    shortened = 1 + room * np.sqrt(8)
    assert_close(nu, norm / shortened, room)
    assert_close(ops.cast(q, "float32"), expected / shortened, 2.0**-8)


@pytest.mark.parametrize(
    "x",
    (np.ones(3), np.float64(1.0), np.ones((2, 2), "int32")),
    ids=("vector", "scalar", "integer"),
)
@pytest.mark.parametrize("f", (polar_factor, nuclear_norm, polar_and_nuclear))
def test_refuses_x(f, x):
    with pytest.raises(ValueError, match=r"(?s)`x`.*Received"):
        f(x)


@pytest.mark.parametrize("accuracy", ("low", None, 1, ["high"]))
def test_refuses_accuracy(accuracy):
    with pytest.raises(ValueError, match=r"`accuracy`.*standard.*Received"):
        polar_factor(normal(2, 2), accuracy=accuracy)
