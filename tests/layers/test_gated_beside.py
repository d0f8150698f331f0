"""SpectralLSTM and SpectralGRU beside the rest of the library."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tests import helpers
from tests.helpers import assert_close
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import DTYPE
from tests.layers.contract import EXACT
from tests.layers.contract import FEATURES
from tests.layers.contract import normal
from tests.layers.gated import UNITS
from tests.layers.gated import array
from tests.layers.gated import make
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(DTYPE):
        yield


def model_of(layer):
    model = keras.Sequential(
        [keras.Input((5, FEATURES)), layer, keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    return model


def test_the_spectrum_of_each_gate_is_monitored():
    layer = make(SpectralLSTM, name="mine")
    monitor = SpectrumMonitor()
    monitor.set_model(model_of(layer))
    monitor.on_train_begin()
    monitor.on_epoch_begin(0)
    for gate, sigma in zip(layer.cell.gates, array(layer.singular_values())):
        (key,) = (k for k in monitor.history if f"{gate}/sigma_max" in k)
        assert key.startswith("mine/")
        assert_close(monitor.history[key][-1], sigma.max(), EXACT)


def test_gradient_norms_are_those_of_the_stock_layer():
    x, y = normal(2, 5, FEATURES), normal(2, 2)
    layer = make(SpectralLSTM)
    model, stock = model_of(layer), model_of(layer.to_stock())
    stock.layers[-1].set_weights(model.layers[-1].get_weights())
    expected = gradient_norms_over_time(stock, x, y)
    assert_close(gradient_norms_over_time(model, x, y), expected, CLOSE)


SERVER = """
import sys

sys.modules["tf_spectral"] = sys.modules["keras"] = None

import numpy as np
import tensorflow as tf

folder, file = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
(answer,) = serve(tf.constant(np.load(file))).values()
np.save(file, answer)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    helpers.BACKEND != "tensorflow", reason="SavedModels are TensorFlow's"
)
def test_keras_exports_what_needs_no_library(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            SpectralLSTM(UNITS, return_sequences=True),
            SpectralGRU(UNITS),
        ]
    )
    model.export(tmp_path / "model", verbose=False)
    x, file = normal(2, 5, FEATURES), str(tmp_path / "x.npy")
    np.save(file, x)
    command = [sys.executable, "-c", SERVER, str(tmp_path / "model"), file]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    assert_close(np.load(file), array(model(x)), EXACT)
