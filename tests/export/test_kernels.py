"""Feed-forward models in a SavedModel, by Keras' own export and by ours."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.export import export_saved_model
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D
from tf_spectral.layers import SpectralDense

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="SavedModels are TensorFlow's"
)


def convolutional():
    return keras.Sequential(
        [
            layers.Input((6, 5, 2)),
            SpectralConv2D(4, 3, activation="relu", sigma_center="auto"),
            layers.Reshape((4, 12)),
            SpectralConv1D(3, 2, padding="causal", groups=3, reflectors=2),
            layers.Flatten(),
            SpectralDense(5, "modrelu", reflectors=1, form="low_rank"),
            SpectralDense(2, form="dense"),
        ]
    )


@pytest.mark.parametrize("how", ["keras", "frozen", "reflectors"])
def test_exported_model_answers_the_same(how, tmp_path):
    import tensorflow as tf

    model = convolutional()
    folder = str(tmp_path / "model")
    if how == "keras":
        model.export(folder, verbose=False)
    else:
        folder = export_saved_model(model, folder, materialize=how == "frozen")
    served = tf.saved_model.load(folder).signatures["serving_default"]
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, 6, 5, 2))
        x = x.astype("float32")
        (name,) = served.structured_input_signature[1]
        (answer,) = served(**{name: tf.constant(x)}).values()
        expected = keras.ops.convert_to_numpy(model(x))
        assert_close(answer.numpy(), expected, 1e-5)
