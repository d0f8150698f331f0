"""ModReLU against its formula, and as a Keras layer."""

import keras
import numpy as np
import pytest

from tests import oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import inner
from tests.helpers import value_and_grad
from tf_spectral.layers import ModReLU
from tf_spectral.layers.modrelu import modrelu


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


BIAS = np.array([-1.0, -0.3, 0.0, 0.4])


def layer_of(bias, **options):
    layer = ModReLU(**options)
    layer.build((None, len(bias)))
    layer.bias.assign(bias)
    return layer


def test_value_and_gradients(mode):
    z, g = normal(20, 4), normal(20, 4, seed=1)
    oracle = oracles.modrelu(BIAS)
    value, (by_z, by_bias) = value_and_grad(
        lambda z, b: inner(modrelu(z, b), g), z, BIAS, mode=mode
    )
    assert_close(value, np.sum(g * oracle.value(z)), 1e-12)
    assert_close(by_z, g * oracle.derivative(z), 1e-12)
    expected = np.sum(g * oracle.parameter_derivative(z), axis=0)
    assert_close(by_bias, expected, 1e-12)


def test_odd_and_zero_at_zero(mode):
    z = normal(20, 4)
    value = evaluate(lambda z: modrelu(z, BIAS), z, mode=mode)
    negative = evaluate(lambda z: modrelu(z, BIAS), -z, mode=mode)
    assert np.array_equal(value, -negative)
    zero = evaluate(lambda z: modrelu(z, BIAS), np.zeros((1, 4)), mode=mode)
    assert np.array_equal(zero, np.zeros((1, 4)))


def test_contracts_where_the_bias_is_not_positive():
    bias = -np.abs(BIAS)
    a, b = normal(50, 4), normal(50, 4, seed=1)
    f = evaluate(lambda z: modrelu(z, bias), a)
    g = evaluate(lambda z: modrelu(z, bias), b)
    assert np.all(np.abs(f - g) <= np.abs(a - b) + 1e-15)


def test_layer_computes_the_function():
    z = normal(2, 3, 4)
    layer = layer_of(BIAS, dtype="float64")
    assert_close(evaluate(layer, z), oracles.modrelu(BIAS).value(z), 1e-12)
    assert layer.compute_output_shape((2, 3, 4)) == (2, 3, 4)


def test_default_bias_is_small():
    layer = ModReLU()
    layer.build((None, 200))
    bias = keras.ops.convert_to_numpy(layer.bias)
    assert np.all(np.abs(bias) <= 0.01)
    assert np.std(bias) > 0.004


def test_config_round_trip():
    layer = ModReLU(
        bias_initializer=keras.initializers.Constant(-0.5),
        bias_regularizer=keras.regularizers.L2(0.1),
        bias_constraint="non_neg",
        name="f",
    )
    data = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(data)
    assert type(again) is ModReLU
    assert again.get_config() == layer.get_config()
    again.build((None, 2))
    assert_close(keras.ops.convert_to_numpy(again.bias), [-0.5, -0.5], 0.0)


def test_regularizer_and_constraint():
    layer = layer_of(
        np.array([3.0, -4.0]), bias_regularizer="l2", bias_constraint="non_neg"
    )
    assert_close(float(layer.losses[0]), 25 * 0.01, 1e-6)
    constrained = layer.bias.constraint(layer.bias)
    assert_close(keras.ops.convert_to_numpy(constrained), [3.0, 0.0], 0.0)


def test_trains_and_passes_the_mask_on(tmp_path):
    model = keras.Sequential(
        [
            keras.layers.Masking(),
            ModReLU(),
            keras.layers.SimpleRNN(2),
        ]
    )
    model.compile("sgd", "mse")
    x, y = normal(8, 5, 3).astype("float32"), normal(8, 2, seed=1)
    x[:, 3:] = 0.0
    longer = np.pad(x, [[0, 0], [0, 2], [0, 0]])
    before = keras.ops.convert_to_numpy(model(x))
    assert_close(keras.ops.convert_to_numpy(model(longer)), before, 1e-6)
    bias = keras.ops.convert_to_numpy(model.layers[1].bias)
    model.fit(x, y, verbose=0)
    assert np.all(keras.ops.convert_to_numpy(model.layers[1].bias) != bias)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision(dtype):
    policy = keras.DTypePolicy(f"mixed_{dtype}")
    layer = layer_of(BIAS, dtype=policy)
    z = normal(6, 4)
    y = layer(z)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    value = keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
    assert_close(value, oracles.modrelu(BIAS).value(z), 0.01)
