"""Trainings that keep a log and go on where they were stopped."""

import json
import math
import pathlib
import time

import keras
import numpy as np

from tf_spectral import plotting
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.constraints import Orthogonal
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN


def fit_epochs(
    model, x, y, folder, monitor="val_accuracy", callbacks=(), **fit_options
):
    """Trains on a data set, and goes on where a killed run stopped.

    Args:
        model: Compiled Keras model. It ends with the weights of its best
            epoch.
        x: Array of inputs.
        y: Array of targets.
        folder: `pathlib.Path`, where the log, the backup and the best weights
            go.
        monitor: The column of the log that is best where it is largest, or
            least if its name ends in `loss`.
        callbacks: Further Keras callbacks, called first.
        **fit_options: Passed on to `model.fit`.

    Returns:
        Path of the CSV log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, best = folder / "log.csv", folder / "best.weights.h5"
    least = monitor.endswith("loss")
    done, threshold = completed_epochs(folder / "backup"), None
    if done:
        column = plotting.read_log(log)[monitor]
        threshold = np.nanmin(column) if least else np.nanmax(column)
    else:
        best.unlink(missing_ok=True)
    keep = keras.callbacks.ModelCheckpoint(
        best,
        monitor=monitor,
        mode="min" if least else "max",
        save_best_only=True,
        save_weights_only=True,
        initial_value_threshold=threshold,
    )
    model.fit(
        x,
        y,
        callbacks=[*callbacks, *_watchers(model), keep, *_savers(folder)],
        **fit_options,
    )
    if best.exists():
        model.load_weights(best)
    return log


def fit_stream(
    model,
    make_data,
    iterations,
    folder,
    steps=100,
    callbacks=(),
    **fit_options,
):
    """Trains on an endless stream, and goes on where a killed run stopped.

    Args:
        model: Compiled Keras model.
        make_data: Function of the number of the first batch that gives an
            endless `tf.data.Dataset`.
        iterations: Integer, how many batches to train on, rounded up to
            whole epochs.
        folder: `pathlib.Path`, where the log and the backup go.
        steps: Batches in an epoch, the unit of the log.
        callbacks: Further Keras callbacks, called first.
        **fit_options: Passed on to `model.fit`.

    Returns:
        Path of the CSV log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, done = folder / "log.csv", completed_epochs(folder / "backup")
    if not done:
        log.unlink(missing_ok=True)
    model.fit(
        make_data(done * steps),
        steps_per_epoch=steps,
        epochs=math.ceil(iterations / steps),
        shuffle=False,
        callbacks=[*callbacks, *_watchers(model), *_savers(folder)],
        **fit_options,
    )
    return log


def _watchers(model):
    return [*spectrum_monitors(model), SecondsLogger()]


def _savers(folder):
    backup = folder / "backup"
    return [
        keras.callbacks.CSVLogger(
            folder / "log.csv", append=completed_epochs(backup) > 0
        ),
        keras.callbacks.TerminateOnNaN(),
        # Last: what it calls done is in the log already.
        keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False),
    ]


def spectrum_monitors(model):
    """A list of one `SpectrumMonitor`, empty if it had nothing to do."""
    watched = any(
        isinstance(layer, (SpectralRNN, SpectralLSTM, SpectralGRU))
        or (
            isinstance(layer, OrthogonalRNN)
            and isinstance(layer.recurrent_constraint, Orthogonal)
        )
        for layer in model.layers
    )
    return [SpectrumMonitor()] if watched else []


def completed_epochs(backup):
    """How many epochs the backup of a stopped run holds."""
    metadata = pathlib.Path(backup) / "training_metadata.json"
    if not metadata.exists():
        return 0
    return int(json.loads(metadata.read_text()).get("epoch", 0))


class SecondsLogger(keras.callbacks.Callback):
    """Writes the seconds that an epoch took into the logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self._start
