"""What tests of bounds share."""

import keras
import pytest


@pytest.fixture
def float64_layers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)
