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
SCRIPT = """
import contextlib
import json
import sys

import numpy as np
import tensorflow as tf

import keras
from tf_spectral.layers import SpectralRNN

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
rng = np.random.default_rng(0)
x = rng.normal(size=(8, 5, 2)).astype("float32")
y = x[:, 1, :1] * x[:, 3, 1:]


def train(strategy):
    keras.utils.set_random_seed(3)
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    with scope:
        model = keras.Sequential(
            [
                keras.Input((None, 2)),
                SpectralRNN(8, 1, sigma_mode="clip", return_sequences=True),
                SpectralRNN(6, activation="modrelu", form="dense"),
                keras.layers.Dense(1),
            ]
        )
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    losses = model.fit(
        x, y, batch_size=4, epochs=5, shuffle=False, verbose=0
    ).history["loss"]
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    return {"losses": losses, "weights": weights.tolist()}


devices = ["CPU:0", "CPU:1"]
mirrored = tf.distribute.MirroredStrategy(devices)
assert mirrored.num_replicas_in_sync == 2
print(json.dumps([train(None), train(mirrored)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
def test_two_replicas_equal_one_device():
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        env=environment,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = json.loads(done.stdout.strip().splitlines()[-1])
    assert one["losses"][-1] < one["losses"][0]
    assert np.allclose(one["losses"], two["losses"], rtol=1e-4, atol=0.0)
    assert np.allclose(one["weights"], two["weights"], rtol=0.0, atol=1e-4)
