"""What every test starts from: float64 everywhere, one seed, no leftovers."""

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

from tests import helpers


@pytest.fixture(autouse=True)
def fresh_session():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1337)


@pytest.fixture(params=helpers.MODES)
def mode(request):
    """Every way this backend runs a function, see `helpers.MODES`."""
    return request.param
