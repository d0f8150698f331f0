"""Activations: derivatives, bounds, gains, and ModReLU."""

import functools
import math

import keras
import numpy as np
import pytest
from keras import activations
from keras import layers
from keras import ops

from tests import oracles
from tests import oracles_recurrent
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import grad
from tests.helpers import inner
from tests.helpers import value_and_grad
from tf_spectral.activations import _TABLE
from tf_spectral.activations import SMOOTH
from tf_spectral.activations import activation_bounds
from tf_spectral.activations import activation_gain
from tf_spectral.activations import modrelu
from tf_spectral.activations import pullback_from_output
from tf_spectral.activations import smooth_activation
from tf_spectral.layers import ModReLU
from tf_spectral.layers import SpectralDense

# Ways back from outputs

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
def test_modrelu_from_its_output(bias):
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


# Bounds


def test_derivatives_of_smooth_activations():
    z = np.linspace(-6, 6, 101)
    for f in SMOOTH:
        activation = smooth_activation(f)
        s = activation.function(ops.convert_to_tensor(z))
        parts = oracles_recurrent.PARTS[f]
        assert_close(ops.convert_to_numpy(s), parts[0](z), 1e-9)
        for i, part in enumerate((activation.slope, activation.curvature), 1):
            actual = ops.convert_to_numpy(part(ops.convert_to_tensor(z), s))
            assert_close(actual, parts[i](z), 1e-9)
            bound = activation.bounds[i]
            assert np.abs(actual).max() <= bound * (1 + 1e-12)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of numbers in a table")
def test_every_bound_is_a_supremum():
    """Of values, and of quotients of differences."""
    x, h = np.linspace(-30, 30, 12001), 1e-4
    for name, row in _TABLE.items():
        bounds = row.bounds
        function = getattr(activations, name, None) or getattr(ops, name)
        low, value, high, zero = (
            np.asarray(function(ops.convert_to_tensor(at)))
            for at in (x - h, x, x + h, np.zeros(1))
        )
        slope = np.abs(high - low).max() / (2 * h)
        assert 0.99 * bounds.slope < slope <= bounds.slope + 1e-6, name
        assert_close(abs(zero[0]), bounds.at_zero, 1e-12, scale=1)
        line = bounds.at_zero + bounds.growth * np.abs(x)
        assert np.all(np.abs(value) <= line + 1e-9), name
        if bounds.supremum is not None:
            largest = np.abs(value).max()
            assert 0.96 * bounds.supremum < largest <= bounds.supremum, name
        bend = np.abs(high - 2 * value + low).max() / h**2
        if bounds.doubt is None:
            assert 0.98 * bounds.curvature <= bend + 1e-6, name
            assert bend <= bounds.curvature + 1e-5, name
        else:
            assert bend > 1e3, name


@pytest.mark.parametrize("q", (1, 2, "inf"))
def test_derivatives_of_softmax(q):
    """S1 and S2 of softmax, found by search."""
    rng = np.random.default_rng(0)
    bounds = activation_bounds("softmax", q)
    order = np.inf if q == "inf" else q
    slope = bend = 0.0
    for _ in range(300):
        logits = rng.choice([0.0, 1.0, 5.0], 3) * rng.normal(size=3)
        p = np.exp(logits) / np.exp(logits).sum()
        u, v = rng.choice([-1.0, 0.0, 1.0], (2, 3))
        size = np.linalg.norm(u, order) * np.linalg.norm(v, order)
        if size == 0:
            continue
        du, dv = u - p @ u, v - p @ v
        first = np.linalg.norm(p * du, order) / np.linalg.norm(u, order)
        second = np.linalg.norm(p * (du * dv - p @ (du * dv)), order)
        slope, bend = max(slope, first), max(bend, second / size)
    assert 0.5 * bounds.slope < slope <= bounds.slope + 1e-12
    assert 0.05 * bounds.curvature < bend <= bounds.curvature


# Gains

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


@pytest.mark.parametrize(
    "activation",
    [getattr(activations, k) for k, row in _TABLE.items() if row.mean_square],
    ids=lambda f: f.__name__,
)
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


# ModReLU


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
