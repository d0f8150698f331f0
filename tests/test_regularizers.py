"""The penalty of singular values, alone and on layers."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import assert_close
from tests.helpers import dtype_of
from tests.helpers import value_and_grad
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN
from tf_spectral.regularizers import SingularValues

SIGMA = np.array([1.5, 0.0, -0.75, 1.0, -2.0])


@pytest.mark.parametrize("center", [0.0, 1.0, 1.4])
def test_value_and_gradient(center, mode):
    penalty = SingularValues(strength=0.3, center=center)
    value, (gradient,) = value_and_grad(penalty, SIGMA, mode=mode)
    gap = np.abs(SIGMA) - center
    assert_close(value, 0.3 * np.sum(gap**2), 1e-14)
    # At zero, where the size has a kink, the way up counts.
    sign = np.where(SIGMA < 0, -1.0, 1.0)
    assert_close(gradient, 0.6 * gap * sign, 1e-14)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_keeps_the_dtype(dtype):
    x = ops.cast(SIGMA, dtype)
    assert dtype_of(SingularValues()(x)) == dtype


def test_configuration_and_keras_names():
    penalty = keras.regularizers.get(SingularValues(0.5, center=0.25))
    config = keras.regularizers.serialize(penalty)
    copy = keras.regularizers.deserialize(config)
    assert isinstance(copy, SingularValues)
    assert copy.get_config() == {"strength": 0.5, "center": 0.25}


def test_penalty_of_a_layer_is_that_of_its_matrix():
    layer = SpectralDense(
        4, sigma_mode="free", sigma_regularizer=SingularValues(2.0, 0.5)
    )
    layer.build((None, 3))
    layer.svd._sigma.assign([1.5, -0.5, 0.25])
    kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
    sigma = np.linalg.svd(kernel, compute_uv=False)
    assert_close(
        float(sum(layer.losses)), 2.0 * np.sum((sigma - 0.5) ** 2), 1e-6
    )


@pytest.mark.slow
def test_pulls_singular_values_and_is_saved(tmp_path):
    penalty = SingularValues(strength=1.0, center=1.0)
    options = {"sigma_center": 1.0, "sigma_radius": 0.5}
    model = keras.Sequential(
        [
            keras.Input((4, 2)),
            SpectralRNN(3, **options, sigma_regularizer=penalty),
            keras.layers.Dense(1),
        ]
    )
    svd = model.layers[0].cell.svd
    svd._sigma.assign([1.0, -1.0, 2.0])
    far = np.abs(ops.convert_to_numpy(svd.sigma()) - 1).max()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    x, y = np.zeros((8, 4, 2)), np.zeros((8, 1))
    model.fit(x, y, epochs=30, batch_size=8, verbose=0)
    near = np.abs(ops.convert_to_numpy(svd.sigma()) - 1).max()
    assert near < 0.5 * far
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    regularizer = again.layers[0].cell.svd.sigma_regularizer
    assert regularizer.get_config() == penalty.get_config()
    losses = [sum(float(v) for v in m.losses) for m in (model, again)]
    assert losses[0] == pytest.approx(losses[1])


def test_counts_once_for_each_gate():
    layer = SpectralLSTM(
        3,
        sigma_center=0.5,
        sigma_mode="clip",
        sigma_radius=0.1,
        sigma_regularizer=SingularValues(1.0),
    )
    layer.build((None, 4, 2))
    assert_close(float(sum(layer.losses)), 4 * 3 * 0.25, 1e-6)


@pytest.mark.parametrize("name", ["strength", "center"])
@pytest.mark.parametrize("value", [-1.0, np.inf, np.nan, "1", None])
def test_refuses(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        SingularValues(**{name: value})
