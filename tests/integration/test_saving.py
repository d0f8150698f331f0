"""Training that stops and goes on: from a file, a checkpoint, a backup."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import BACKEND
from tf_spectral.layers import SpectralRNN

UNITS, FEATURES = 6, 2


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3, FEATURES)).astype("float32")
    return x, x[:, :1, 0]


def compiled_model():
    """Weights of every kind: bounded, constrained, of an activation.

    No dropout: Keras does not save where its random numbers have come to.
    """
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            SpectralRNN(
                UNITS, reflectors=1, activation="modrelu", return_sequences=True
            ),
            SpectralRNN(UNITS, sigma_mode="clip", trainable_initial_state=True),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse")
    return model


def fit(model, epochs, **options):
    x, y = data()
    history = model.fit(
        x, y, batch_size=6, epochs=epochs, shuffle=False, verbose=0, **options
    )
    return history.history["loss"]


def assert_same_weights(model, other):
    for a, b in zip(model.weights, other.weights, strict=True):
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        assert np.array_equal(a, b)


def test_a_loaded_model_trains_on_as_the_saved_one(tmp_path):
    model = compiled_model()
    fit(model, 2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    losses = fit(model, 3)
    assert len(set(losses)) == 3
    assert fit(again, 3) == losses
    assert_same_weights(again, model)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
@pytest.mark.slow
def test_checkpoint(tmp_path):
    import tensorflow as tf

    model, other = compiled_model(), compiled_model()
    fit(model, 2)
    # Makes the slots of the optimizer, and differs from what is restored.
    fit(other, 1)
    saved = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    path = saved.save(str(tmp_path / "checkpoint"))
    losses = fit(model, 2)
    restored = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
    restored.restore(path).assert_consumed()
    assert fit(other, 2) == losses
    assert_same_weights(model, other)


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Stops the process, as far as the model can tell, in an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_backup(tmp_path):
    whole = compiled_model()
    start = whole.get_weights()
    fit(whole, 4)
    killed = compiled_model()
    killed.set_weights(start)
    directory = str(tmp_path / "backup")
    backup = keras.callbacks.BackupAndRestore(directory)
    with pytest.raises(Killed):
        fit(killed, 4, callbacks=[backup, Kill(2)])
    # A new process would start from other weights.
    resumed = compiled_model()
    backup = keras.callbacks.BackupAndRestore(directory)
    assert len(fit(resumed, 4, callbacks=[backup])) == 2
    assert_same_weights(resumed, whole)
