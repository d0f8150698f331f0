"""Trainings of the examples: the best epoch is kept, a stop loses nothing."""

import shutil

import keras
import numpy as np
import pytest

from support import fitting
from tf_spectral import plotting
from tf_spectral.callbacks.backup import saved_states
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


@pytest.mark.slow
def test_a_killed_training_loses_nothing_but_the_epoch_it_was_in(tmp_path):
    """Of kills before, in and after the row of the log, and of its first."""
    whole = compiled()
    log = fit(whole, tmp_path / "whole", 4)
    folder = tmp_path / "parts"
    fit(compiled(), folder, 2)
    text = (folder / "log.csv").read_text()
    for torn in ("2,0.1", "2,0.1,0.2,0.3\n", "2,0.1,0.2,0.3\n3"):
        (folder / "log.csv").write_text(text + torn)
        saver = fitting.BackupOfBest(folder, "val_loss")
        assert fitting.take_up(saver, compiled())[1] == 2
        assert (folder / "log.csv").read_text() == text
    again = plotting.read_log(fit(compiled(), folder, 4))
    for name, column in plotting.read_log(log).items():
        if name != "seconds":
            np.testing.assert_array_equal(again[name], column)
    # Killed between the first row of the log and the first epoch's state.
    (tmp_path / "parts" / "backup" / "epoch-000000.npz").write_bytes(
        (tmp_path / "whole" / "backup" / "epoch-000003.npz").read_bytes()
    )
    for number in saved_states(folder / "backup")[1:]:
        (folder / "backup" / f"epoch-{number:06}.npz").unlink()
    again = plotting.read_log(fit(compiled(), folder, 1))
    np.testing.assert_array_equal(again["epoch"], [0])


def test_a_result_without_backup_is_not_written_over(tmp_path):
    log = fit(compiled(), tmp_path, 2)
    text = log.read_text()
    shutil.rmtree(tmp_path / "backup")
    with pytest.raises(SystemExit, match="backup is gone"):
        fit(compiled(), tmp_path, 2)
    with pytest.raises(SystemExit, match="backup is gone"):
        fitting.fit_stream(compiled(), None, 100, tmp_path)
    assert log.read_text() == text


@pytest.mark.parametrize("layer", [SpectralDense, SpectralLSTM])
def test_spectra_of_recurrent_layers_are_logged(layer, tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 3)), layer(5, reflectors=2), keras.layers.Dense(1)]
    )
    monitors = fitting.spectrum_monitors(model)
    assert len(monitors) == (layer is SpectralLSTM)
