"""A SavedModel needs neither this library nor Keras where it is served."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.export import export_saved_model
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BACKEND != "tensorflow", reason="SavedModels are TensorFlow's"
    ),
]

SERVER = """
import sys

sys.modules["tf_spectral"] = sys.modules["keras"] = None

import numpy as np
import tensorflow as tf

for name in ("tf_spectral", "keras"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} could be imported")

folder, file = sys.argv[1:]
served = tf.saved_model.load(folder).signatures
answers = {}
for name, x in np.load(file).items():
    x = tf.constant(x)
    whole = served["serving_default"](inputs=x)["outputs"]
    state = served["initial_state"](batch_size=tf.constant(len(x)))
    for t in range(x.shape[1]):
        state = served["step"](inputs=x[:, t], **state)
        last = state.pop("outputs")
    answers[name + "_whole"], answers[name + "_last"] = whole, last
np.savez(file, **answers)
"""


@pytest.mark.parametrize("materialize", [True, False])
def test_serves_where_the_library_is_missing(materialize, tmp_path):
    model = keras.Sequential(
        [
            layers.Input((5, 3)),
            SpectralRNN(8, reflectors=3, return_sequences=True),
            SpectralDense(4, "tanh", reflectors=2, sigma_radius=0.5),
            SpectralLSTM(4, reflectors=1, return_sequences=True),
            SpectralGRU(4, return_sequences=True),
            layers.LSTM(4),
            SpectralDense(2, form="dense"),
        ]
    )
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 5, 3)).astype("float32")
    model.fit(x, np.ones((6, 2)), epochs=2, verbose=0)
    folder = export_saved_model(model, tmp_path / "m", materialize=materialize)

    batches = {
        "seen": x,
        "longer": rng.normal(size=(2, 23, 3)).astype("float32"),
        "single": rng.normal(size=(1, 1, 3)).astype("float32"),
    }
    file = tmp_path / "arrays.npz"
    np.savez(file, **batches)
    subprocess.run(
        [sys.executable, "-c", SERVER, folder, str(file)],
        check=True,
        cwd=tmp_path,
        timeout=300,
    )
    answers = np.load(file)
    for name, batch in batches.items():
        expected = keras.ops.convert_to_numpy(model(batch))
        assert_close(answers[f"{name}_whole"], expected, 1e-5)
        assert_close(answers[f"{name}_last"], expected, 1e-5)
