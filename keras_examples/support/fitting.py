"""Trainings that keep a log and go on where they were stopped."""

import math
import sys
import time

import keras
import numpy as np

from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.callbacks import Backup
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.callbacks.backup import saved_states
from tf_spectral.constraints import Orthogonal
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

# Batches in an epoch of an endless stream, the unit of its log.
STEPS = 100


def fit_epochs(
    model, x, y, folder, monitor="val_accuracy", callbacks=(), **fit_options
):
    """Trains on a data set, and goes on where a killed run stopped.

    Args:
        model: Compiled Keras model. It ends with the weights of its best
            epoch.
        x: Array of inputs.
        y: Array of targets.
        folder: `pathlib.Path`, where the log and the backup go.
        monitor: The column of the log that is best where it is largest, or
            least if its name ends in `loss`.
        callbacks: Further Keras callbacks, called first.
        **fit_options: Passed on to `model.fit`.

    Returns:
        Path of the CSV log.
    """
    saver = BackupOfBest(folder, monitor)
    log, _ = take_up(saver, model)
    model.fit(
        x,
        y,
        callbacks=[*callbacks, *_watchers(model), *savers(saver)],
        **fit_options,
    )
    saver.restore_best(model)
    return log


def fit_stream(
    model,
    make_data,
    iterations,
    folder,
    steps=STEPS,
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
    saver = LoggedBackup(folder)
    log, done = take_up(saver, model)
    model.fit(
        make_data(done * steps),
        steps_per_epoch=steps,
        epochs=math.ceil(iterations / steps),
        shuffle=False,
        callbacks=[*callbacks, *_watchers(model), *savers(saver)],
        **fit_options,
    )
    return log


class LoggedBackup(Backup):
    """Saves a state when its row of the log is on the disk.

    Args:
        folder: `pathlib.Path`, for `log.csv` and the folder `backup`.
    """

    def __init__(self, folder):
        super().__init__(folder / "backup")
        self.log = folder / "log.csv"

    def on_epoch_end(self, epoch, logs=None):
        files.sync(self.log)
        super().on_epoch_end(epoch, logs)


class BackupOfBest(LoggedBackup):
    """Keeps the state of the best epoch, too.

    Args:
        folder: As of `LoggedBackup`.
        monitor: As of `fit_epochs`.
    """

    def __init__(self, folder, monitor):
        super().__init__(folder)
        self.monitor = monitor

    def kept(self, epochs):
        best = self.best_epoch()
        return [*super().kept(epochs), *([] if best is None else [best])]

    def best_epoch(self):
        """The number of the state with the best row of the log, or `None`."""
        if not self.log.exists():
            return None
        column = plotting.read_log(self.log).get(self.monitor, np.array([]))
        if not np.isfinite(column).any():
            return None
        least = self.monitor.endswith("loss")
        return int(np.nanargmin(column) if least else np.nanargmax(column)) + 1

    def restore_best(self, model):
        """Sets the model to its best epoch, if one could be measured."""
        best = self.best_epoch()
        if best is not None:
            self.restore(model, best)


def take_up(saver, model):
    """Brings the log of a stopped run to where its backup is.

    Args:
        saver: `LoggedBackup`.
        model: Compiled and built Keras model.

    Returns:
        Path of the log, and how many epochs are done.
    """
    if saver.log.exists() and not saved_states(saver.folder):
        sys.exit(
            f"{saver.log} is the log of a run whose backup is gone. Give "
            "another --out, or remove it."
        )
    done = saver.restore(model)
    if done:
        files.cut_table(saver.log, last=done - 1)
    else:
        # Of a run that was killed in its first epoch.
        saver.log.unlink(missing_ok=True)
    return saver.log, done


def _watchers(model):
    return [*spectrum_monitors(model), SecondsLogger()]


def savers(saver):
    """Callbacks that log and save, to be called last."""
    return [
        keras.callbacks.CSVLogger(saver.log, append=True),
        keras.callbacks.TerminateOnNaN(),
        # Last: what it calls done is in the log already.
        saver,
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


class SecondsLogger(keras.callbacks.Callback):
    """Writes the seconds that an epoch took into the logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self._start
