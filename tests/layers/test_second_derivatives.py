"""Gradient penalties: derivatives of derivatives, by finite differences."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.layers import ModReLU
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

# Loops that are differentiated twice take long to compile.
pytestmark = [] if BACKEND == "torch" else [pytest.mark.slow]

X = np.random.default_rng(0).normal(size=(2, 5, 3))


@pytest.fixture(autouse=True)
def float64_layers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def energy(layer):
    """A scalar function of the input."""
    return lambda x: ops.sum(ops.sin(layer(x)))


def penalty_and_gradient(f, x):
    """`|grad f(x)|^2` and its gradient by x."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function
        def both(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = f(x)
                penalty = ops.sum(ops.square(inner.gradient(y, x)))
            return penalty, outer.gradient(penalty, x)

        results = both(tf.constant(x))
    elif BACKEND == "jax":
        import jax

        def penalty(x):
            return ops.sum(ops.square(jax.grad(f)(x)))

        results = jax.jit(jax.value_and_grad(penalty))(x)
    else:
        import torch

        x = torch.tensor(x, requires_grad=True)
        (g,) = torch.autograd.grad(f(x), x, create_graph=True)
        value = (g**2).sum()
        results = value, torch.autograd.grad(value, x)[0]
    return [ops.convert_to_numpy(result) for result in results]


MAKERS = {
    "spectral": lambda **k: SpectralRNN(4, reflectors=2, **k),
    "sigmoid": lambda **k: SpectralRNN(4, activation="sigmoid", **k),
    "elu": lambda **k: SpectralRNN(4, activation="elu", **k),
    "modrelu": lambda **k: OrthogonalRNN(4, activation=ModReLU(), **k),
    "softsign": lambda **k: OrthogonalRNN(4, activation="softsign", **k),
    "lstm": lambda **k: SpectralLSTM(4, reflectors=2, **k),
    "gru": lambda **k: SpectralGRU(4, reflectors=2, **k),
}


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_gradient_penalties(name, sequences):
    check(layer_under_test(name, sequences))


def test_gradient_penalties_under_masks():
    model = keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            layers.Masking(mask_value=9.0),
            layer_under_test("sigmoid", False),
        ]
    )
    x = X.copy()
    x[0, 2:4] = 9.0
    check(model, x)


def layer_under_test(name, sequences):
    keras.utils.set_random_seed(0)
    layer = MAKERS[name](return_sequences=sequences)
    layer.build(X.shape)
    return layer


def check(layer, x=X):
    f = energy(layer)
    _, gradient = penalty_and_gradient(f, x)
    direction = np.random.default_rng(1).normal(size=x.shape)
    direction[x == 9.0] = 0.0
    # Keras has operations of float32 on JAX, and layers on PyTorch.
    h = 1e-3 if BACKEND == "jax" else 1e-5
    ahead, behind = (
        penalty_and_gradient(f, x + s * h * direction)[0] for s in (1, -1)
    )
    expected = (ahead - behind) / (2 * h)
    tolerance = 1e-5 if BACKEND == "tensorflow" else 1e-2
    scale = max(1.0, abs(expected))
    assert_close(np.sum(gradient * direction), expected, tolerance, scale)
