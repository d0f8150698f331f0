"""The sum of squares."""

import keras
import numpy as np
from keras import ops

from tests.helpers import assert_close
from tf_spectral.losses import SumOfSquares


def test_sum_of_squares():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(2, 5, 3)).astype("float32")
    found = ops.convert_to_numpy(SumOfSquares()(z, y))
    assert_close(found, ((y - z) ** 2).sum(-1).mean(), 1e-6)
    mean = keras.losses.MeanSquaredError()(z, y)
    assert_close(found, 3 * ops.convert_to_numpy(mean), 1e-6)
    whole = SumOfSquares()(np.ones((2, 3), "int32"), y[:2])
    assert_close(
        ops.convert_to_numpy(whole), ((y[:2] - 1) ** 2).sum(-1).mean(), 1e-6
    )


def test_sum_of_squares_is_saved():
    loss = SumOfSquares(reduction="sum", name="energy")
    config = keras.losses.serialize(loss)
    copy = keras.losses.deserialize(config)
    assert isinstance(copy, SumOfSquares)
    assert (copy.reduction, copy.name) == ("sum", "energy")
