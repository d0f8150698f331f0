"""The upper bound of the nuclear norm."""

import numpy as np
import pytest

from tests import oracles_norms as oracles
from tests.helpers import evaluate
from tests.linalg.test_polar import GRADIENTS
from tests.linalg.test_polar import normal
from tests.linalg.test_polar import of_spectrum
from tf_spectral.linalg.norms import nuclear_norm_upper_bound


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", sorted(GRADIENTS))
def test_never_below_the_nuclear_norm(name, dtype):
    x = GRADIENTS[name].astype(dtype)
    norm = oracles.nuclear_norm(x)
    bound = evaluate(nuclear_norm_upper_bound, x)
    assert norm <= bound
    assert bound <= np.sqrt(min(x.shape)) * np.linalg.norm(x) * 1.5


def test_near_where_few_directions_hold_most(mode):
    s = np.concatenate([np.geomspace(1, 0.1, 10), np.full(90, 1e-3)])
    x = of_spectrum(s, 300, 100).astype("float32")
    bound = evaluate(nuclear_norm_upper_bound, x, mode=mode)
    norm = oracles.nuclear_norm(x)
    assert norm <= bound <= 1.35 * norm
    # The bound by the Frobenius norm alone is far away.
    assert np.sqrt(100) * np.linalg.norm(x) > 3 * norm


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (1, 1), (1, 5)])
def test_tiny_huge_and_small(shape, scale):
    x = (scale * normal(*shape)).astype("float32")
    bound = evaluate(nuclear_norm_upper_bound, x)
    norm = oracles.nuclear_norm(x.astype("float64"))
    # All directions are taken: the columns of x b alone count.
    assert norm <= bound <= 1.5 * norm


def test_zero_nan_and_nothing():
    zeros = np.zeros((40, 30), "float32")
    assert evaluate(nuclear_norm_upper_bound, zeros) == 0.0
    assert evaluate(nuclear_norm_upper_bound, zeros[:0]) == 0.0
    zeros[3, 4] = np.nan
    assert not np.isfinite(evaluate(nuclear_norm_upper_bound, zeros))


def test_errors():
    with pytest.raises(ValueError, match="rank"):
        nuclear_norm_upper_bound(np.ones(3))
