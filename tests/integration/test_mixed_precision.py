"""Half precision where it is fast, float32 where it is needed."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles
from tests.helpers import assert_close
from tf_spectral.layers import SpectralRNN

UNITS, FEATURES = 8, 3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def model_of(policy, **options):
    layer = SpectralRNN(UNITS, return_sequences=True, dtype=policy, **options)
    inputs = keras.Input((None, FEATURES))
    outputs = layer(inputs)
    outputs = keras.layers.Dense(1, dtype="float32")(outputs)
    return keras.Model(inputs, outputs), layer


def dtypes(tensors):
    return {keras.backend.standardize_dtype(t.dtype) for t in tensors}


@pytest.mark.parametrize(
    "half,options",
    [
        ("bfloat16", {"form": "low_rank", "reflectors": 1}),
        ("float16", {"form": "dense", "recurrent_dropout": 0.1}),
        ("bfloat16", {"reflectors": 2, "activation": "modrelu"}),
        ("float16", {"activation": "gelu", "trainable_initial_state": True}),
    ],
    ids=("thin", "dense", "modrelu", "fallback"),
)
@pytest.mark.costly
def test_trains(half, options):
    model, layer = model_of(f"mixed_{half}", sigma_mode="fixed", **options)
    assert dtypes(layer.weights) == {"float32"}
    assert dtypes([layer(np.ones((2, 5, FEATURES)))]) == {half}
    x = normal(16, 5, FEATURES).astype("float32")
    optimizer = keras.optimizers.Adam(0.02)
    if half == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 2.0**10)
    model.compile(optimizer, "mse")
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    losses = model.fit(x, x[:, :, :1], epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for old, variable in zip(before, model.trainable_variables, strict=True):
        new = ops.convert_to_numpy(variable)
        assert np.isfinite(new).all()
        assert np.any(new != old), variable.path
    # In bfloat16 the error would be about 0.01.
    matrix = layer.matrix()
    assert dtypes([matrix]) == {"float32"}
    matrix = ops.convert_to_numpy(matrix)
    assert_close(matrix @ matrix.T, np.eye(UNITS), 1e-5)


@pytest.mark.parametrize("half", ("bfloat16", "float16"))
def test_outputs_are_near_those_of_float32(half):
    _, single = model_of("float32")
    _, mixed = model_of(f"mixed_{half}")
    mixed.set_weights(single.get_weights())
    x = normal(4, 30, FEATURES).astype("float32")
    expected = ops.convert_to_numpy(single(x))
    actual = ops.convert_to_numpy(ops.cast(mixed(x), "float32"))
    assert_close(actual, expected, 0.05 if half == "bfloat16" else 0.005)


def test_float64_is_exact():
    layer = SpectralRNN(
        UNITS, activation="relu", return_sequences=True, dtype="float64"
    )
    x = normal(4, 30, FEATURES)
    outputs = layer(x)
    assert dtypes([outputs, layer.matrix()]) == {"float64"}
    assert dtypes(layer.trainable_variables) == {"float64"}
    matrix = ops.convert_to_numpy(layer.matrix())
    expected, _ = oracles.simple_rnn(
        x,
        ops.convert_to_numpy(layer.cell.kernel),
        np.zeros(UNITS),
        matrix,
        oracles.relu,
    )
    assert_close(ops.convert_to_numpy(outputs), expected, 1e-12)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert_close(values, np.ones(UNITS), 1e-14)
