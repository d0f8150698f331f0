"""One step on two replicas is one step on one device."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import BACKEND

# In a process of its own: devices are made before TensorFlow starts, and many
# strategies in one process spoil each other.
START = """
import contextlib
import json
import sys

import numpy as np
import tensorflow as tf

import keras
import tf_spectral

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert mirrored.num_replicas_in_sync == 2


def train(strategy, make_model, x, y):
    keras.utils.set_random_seed(3)
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    with scope:
        model = make_model()
    losses = model.fit(
        x, y, batch_size=4, epochs=5, shuffle=False, verbose=0
    ).history["loss"]
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    return {"losses": losses, "weights": weights.tolist()}


def compare(make_model, x, y):
    return [train(strategy, make_model, x, y) for strategy in (None, mirrored)]


rng = np.random.default_rng(0)
"""

SPECTRAL_RNN = """
from tf_spectral.layers import SpectralRNN

# From the identity states are larger, and SGD wants a smaller rate.
OLD = {"reflector_initializer": "gaussian", "sigma_radius": 0.01}


def make_model():
    model = keras.Sequential(
        [
            keras.Input((None, 2)),
            SpectralRNN(8, 1, sigma_mode="clip", return_sequences=True, **OLD),
            SpectralRNN(6, activation="modrelu", form="dense", **OLD),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


x = rng.normal(size=(8, 5, 2)).astype("float32")
print(json.dumps([compare(make_model, x, x[:, 1, :1] * x[:, 3, 1:])]))
"""

DSGD = """
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.optimizers import DSGD


def maker(**given):
    def make_model():
        options = dict(given)
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(5, "tanh"),
                keras.layers.Dense(2, "sigmoid"),
            ]
        )
        if options.pop("certified", False):
            options["smoothness"] = LayerwiseSmoothness.from_model(
                model, options["norm"], residual=1.0, loss="mse"
            )
        model.compile(DSGD(**options), "mse")
        return model

    return make_model


x = rng.normal(size=(8, 3)).astype("float32")
y = (x[:, :2] > 0).astype("float32")
options = [
    {},
    {"norm": 1, "weight_decay": 0.1},
    {"norm": 1, "certified": True},
    {"norm": 2, "certified": True},
    {"norm": "inf", "norm_refresh": 3, "certified": True},
    {"selection": "random", "seed": 5},
    {"selection": "cyclic", "norm": "inf", "smoothness": "constant"},
]
print(json.dumps([compare(maker(**o), x, y) for o in options]))
"""

# The same, but for the options.
SPECTRAL_DESCENT = (
    DSGD[: DSGD.index("options = [")].replace("DSGD", "SpectralDescent")
    + """
options = [
    {
        "lipschitz": 4.0,
        "momentum": 0.5,
        "radius": 0.1,
        "polar_accuracy": "exact",
    },
    {"lipschitz": {"kernel": 4.0, "default": 1.0}, "selection": "greedy"},
    {
        "learning_rate": 0.01,
        "lipschitz": 1.0,
        "preconditioner": "rms",
        "polar_accuracy": "exact",
    },
]
print(json.dumps([compare(maker(**o), x, y) for o in options]))
"""
)

RIEMANNIAN = """
from tf_spectral.constraints import Orthogonal
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD


def maker(optimizer, **options):
    def make_model():
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(
                    6,
                    "tanh",
                    kernel_initializer="orthogonal",
                    kernel_constraint=Orthogonal(),
                ),
                keras.layers.Dense(2, "sigmoid"),
            ]
        )
        model.compile(optimizer(0.1, **options), "mse")
        return model

    return make_model


x = rng.normal(size=(8, 6)).astype("float32")
y = (x[:, :2] > 0).astype("float32")
makers = [
    maker(SRGD, euclidean_optimizer="adam"),
    maker(SRCD, seed=5),
    maker(SRCD, block_size=2, adaptive="adam", selection="cyclic"),
    maker(SRCD, adaptive="rmsprop", selection="greedy"),
]
print(json.dumps([compare(make, x, y) for make in makers]))
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
@pytest.mark.parametrize(
    "script",
    [SPECTRAL_RNN, DSGD, SPECTRAL_DESCENT, RIEMANNIAN],
    ids=["spectral_rnn", "dsgd", "spectral_descent", "riemannian"],
)
def test_two_replicas_equal_one_device(script):
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(
        [sys.executable, "-c", START + script],
        capture_output=True,
        env=environment,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for one, two in json.loads(done.stdout.strip().splitlines()[-1]):
        assert one["losses"][-1] < one["losses"][0]
        assert np.allclose(one["losses"], two["losses"], rtol=1e-4, atol=0.0)
        assert np.allclose(one["weights"], two["weights"], rtol=0.0, atol=1e-4)
