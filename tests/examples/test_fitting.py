"""Trainings of the examples: the best epoch is kept, a stop loses nothing."""

import fitting
import keras
import numpy as np
import pytest

from tf_spectral import plotting
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralLSTM


def compiled():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 3)).astype("float32")
    return x, x.sum(1, keepdims=True)


def fit(model, folder, epochs, **options):
    x, y = data()
    options = {"monitor": "val_loss", "verbose": 0, **options}
    return fitting.fit_epochs(
        model,
        x,
        y,
        folder,
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        validation_data=(x[:5], y[:5] + 1.0),
        **options,
    )


def test_a_stopped_training_goes_on_as_if_it_had_not(tmp_path):
    whole, parts = compiled(), compiled()
    log = plotting.read_log(fit(whole, tmp_path / "whole", 6))
    fit(parts, tmp_path / "parts", 2)
    parts = compiled()
    again = plotting.read_log(fit(parts, tmp_path / "parts", 6))
    np.testing.assert_array_equal(again["epoch"], np.arange(6))
    np.testing.assert_allclose(again["val_loss"], log["val_loss"], rtol=1e-5)
    for one, other in zip(parts.get_weights(), whole.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_model_ends_at_its_best_epoch(tmp_path):
    model = compiled()
    log = plotting.read_log(fit(model, tmp_path, 12))
    # The targets of the validation part are shifted: it gets worse again.
    assert np.nanargmin(log["val_loss"]) < 11
    x, y = data()
    loss = model.evaluate(x[:5], y[:5] + 1.0, verbose=0)
    np.testing.assert_allclose(loss, np.nanmin(log["val_loss"]), rtol=1e-5)


def test_a_new_training_forgets_the_best_epoch_of_an_older_one(tmp_path):
    fit(compiled(), tmp_path, 3)
    for path in sorted((tmp_path / "backup").rglob("*"), reverse=True):
        path.unlink()
    (tmp_path / "backup").rmdir()
    log = fit(compiled(), tmp_path, 1)
    assert len(plotting.read_log(log)["epoch"]) == 1


@pytest.mark.parametrize("layer", [SpectralDense, SpectralLSTM])
def test_spectra_of_recurrent_layers_are_logged(layer, tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 3)), layer(5, reflectors=2), keras.layers.Dense(1)]
    )
    monitors = fitting.spectrum_monitors(model)
    assert len(monitors) == (layer is SpectralLSTM)


def test_no_backup_means_no_completed_epoch(tmp_path):
    assert fitting.completed_epochs(tmp_path / "absent") == 0
