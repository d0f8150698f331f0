"""Gains against integrals of the activations themselves."""

import functools
import math

import keras
import numpy as np
import pytest
from keras import activations
from keras import layers
from keras import ops

from tests.helpers import assert_close
from tf_spectral.layers import ModReLU
from tf_spectral.layers import SpectralDense
from tf_spectral.layers.gains import _MEAN_SQUARES
from tf_spectral.layers.gains import activation_gain

LEAKY = {
    "function": functools.partial(activations.leaky_relu, negative_slope=0.5),
    "layer": layers.LeakyReLU(negative_slope=0.5),
}


def mean_square(f):
    """`E f(z)^2` for standard normal z, by the trapezoidal rule."""
    z = np.linspace(-12, 12, 240_001)
    weights = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    y = ops.convert_to_numpy(f(ops.convert_to_tensor(z)))
    return float(np.sum(y.astype("float64") ** 2 * weights))


@pytest.mark.parametrize("activation", _MEAN_SQUARES, ids=lambda f: f.__name__)
def test_gain_undoes_the_activation(activation):
    product = activation_gain(activation) ** 2 * mean_square(activation)
    # Some backends compute some of them in float32.
    assert_close(product, 1.0, 1e-6)


@pytest.mark.parametrize("name", LEAKY)
def test_gain_of_a_slope(name):
    gain = activation_gain(LEAKY[name])
    assert_close(gain, math.sqrt(2 / (1 + 0.5**2)), 1e-15)
    assert_close(gain**2 * mean_square(LEAKY[name]), 1.0, 1e-6)


def test_known_values():
    for name, gain in {
        "linear": 1.0,
        "relu": math.sqrt(2),
        "leaky_relu": 1.3867504906,
        "tanh": 1.5925374197,
        "selu": 1.0,
    }.items():
        assert_close(activation_gain(activations.get(name)), gain, 1e-9)
    assert activation_gain(ModReLU()) == 1.0


@pytest.mark.parametrize(
    "unknown", [activations.softmax, lambda x: x, layers.PReLU(), {}]
)
def test_unknown_activation(unknown):
    with pytest.raises(ValueError, match="relu.*tanh.*Received"):
        activation_gain(unknown)


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "tanh"])
def test_a_signal_keeps_its_length_through_many_layers(activation):
    """With a center of 1 it all but vanishes in ten."""
    x = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    lengths = {}
    for center in ("auto", 1.0):
        y = ops.convert_to_tensor(x)
        for _ in range(10):
            layer = SpectralDense(
                64,
                activation,
                sigma_center=center,
                reflector_initializer="haar",
            )
            y = layer(y)
        # What the next matrix would make of it.
        gain = 1.0 if center == 1.0 else activation_gain(layer.activation)
        lengths[center] = gain * float(ops.mean(ops.square(y))) ** 0.5
    assert 0.5 < lengths["auto"] < 2.0
    assert lengths[1.0] < 0.4


def test_the_center_follows_the_activation():
    layer = SpectralDense(4, "relu", sigma_center="auto", sigma_mode="fixed")
    layer.build((None, 3))
    assert layer.sigma_center == "auto"
    assert layer.get_config()["sigma_center"] == "auto"
    sigma = keras.ops.convert_to_numpy(layer.singular_values())
    assert_close(sigma, [math.sqrt(2)] * 3, 1e-6)
