"""Cotangents of activations from their outputs alone."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import grad
from tests.helpers import inner
from tf_spectral.layers import ModReLU
from tf_spectral.layers.slopes import pullback_from_output

# Both signs, far into saturation, none at a kink.
Z = np.array([[-40.0, -3.0, -0.7, -1e-3, 1e-3, 0.2, 1.5, 40.0]])
CONVEX = ("leaky_relu", 0.2), ("partial", 0.5), ("layer", 0.25), ("plain", 0.0)


def leaky(kind, slope):
    function = keras.activations.leaky_relu
    return {
        "leaky_relu": function,
        "partial": functools.partial(function, negative_slope=slope),
        "layer": keras.layers.LeakyReLU(slope, dtype="float64"),
        "plain": functools.partial(function, negative_slope=0.0),
    }[kind]


def check(activation, z=Z, tolerance=1e-12):
    """Against the backend's own derivative."""
    pullback = pullback_from_output(activation)
    g = np.random.default_rng(0).normal(size=z.shape)
    expected = grad(lambda z: inner(activation(z), g), z)
    actual = evaluate(lambda z, g: pullback(g, activation(z)), z, g)
    assert_close(actual, expected, tolerance)
    return expected


@pytest.mark.parametrize(
    "name",
    ("linear", "relu", "tanh", "sigmoid", "softsign", "elu"),
)
def test_is_the_derivative(name):
    activation = keras.activations.get(name)
    # Keras rounds tanh to float32 on JAX.
    rounded = (BACKEND, name) == ("jax", "tanh")
    check(activation, tolerance=1e-6 if rounded else 1e-12)
    if rounded:
        return
    z = Z[:, 1:-1]
    g = np.random.default_rng(0).normal(size=z.shape)
    expected = oracles.finite_difference(
        lambda z: np.sum(g * evaluate(activation, z)), z
    )
    pullback = pullback_from_output(activation)
    actual = evaluate(lambda z, g: pullback(g, activation(z)), z, g)
    assert_close(actual, expected, 1e-8)


@pytest.mark.parametrize("kind,slope", CONVEX)
def test_every_spelling_of_leaky_relu(kind, slope):
    # TensorFlow keeps the slope in float32.
    derivative = check(leaky(kind, slope), tolerance=1e-7)
    g = check(keras.activations.linear)
    assert_close(derivative[Z < 0], slope * g[Z < 0], 1e-7, np.abs(g).max())


def test_partial_without_a_slope_has_the_default_one():
    check(functools.partial(keras.activations.leaky_relu), tolerance=1e-7)


@pytest.mark.parametrize("bias", (-0.5, 0.0, 0.5))
def test_modrelu(bias):
    layer = ModReLU(
        bias_initializer=keras.initializers.Constant(bias), dtype="float64"
    )
    layer.build(Z.shape)
    expected = check(layer)
    assert np.any(expected == 0.0) == (bias < 0)


@pytest.mark.parametrize("name", ("relu", "leaky_relu", "elu", "tanh"))
def test_a_subgradient_at_the_kink(name):
    activation = keras.activations.get(name)
    pullback = pullback_from_output(activation)
    z, g = np.zeros((1, 3)), np.ones((1, 3))
    actual = evaluate(lambda z, g: pullback(g, activation(z)), z, g)
    assert np.all((0.0 <= actual) & (actual <= 1.0))


@pytest.mark.parametrize(
    "activation",
    [
        keras.activations.gelu,
        keras.activations.swish,
        keras.activations.softmax,
        keras.activations.selu,
        lambda z: ops.tanh(z),
        functools.partial(keras.activations.relu, max_value=1.0),
        functools.partial(keras.activations.leaky_relu, negative_slope=-0.1),
        functools.partial(keras.activations.elu, alpha=0.5),
        keras.layers.ReLU(max_value=1.0),
        keras.layers.PReLU(),
        # A callable that cannot be a key.
        type("Unhashable", (list,), {"__call__": lambda self, z: z})(),
    ],
    ids=(
        "gelu swish softmax selu lambda bounded negative elu_alpha bounded_"
        "layer prelu unhashable"
    ).split(),
)
def test_none_where_no_derivative_is_known(activation):
    assert pullback_from_output(activation) is None


def test_negative_slope_of_a_layer_is_refused_before_it_comes_here():
    with pytest.raises(ValueError, match="negative_slope"):
        keras.layers.LeakyReLU(-0.1)


def test_a_subclass_may_compute_something_else():
    class Doubled(keras.layers.LeakyReLU):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    assert pullback_from_output(Doubled(0.1)) is None
