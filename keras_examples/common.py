"""What the examples share: cells by name, logs, and going on after a stop."""

import json
import math
import os
import pathlib
import statistics
import sys
import time

import keras

import tf_spectral
from tf_spectral import datasets
from tf_spectral import plotting
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.constraints import Orthogonal
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralRNN

# Arguments that do not change a run that was begun.
NOT_SETTINGS = (
    "cell",
    "method",
    "kind",
    "sets",
    "seeds",
    "iterations",
    "out",
    "export",
)
CELLS = ("spectral", "orthogonal", "simple", "irnn", "lstm", "gru")


def recurrent_layer(cell, units, spectral_options, activation=None, **kwargs):
    """A recurrent layer of the named kind.

    Args:
        cell: One of `CELLS`. `"orthogonal"` is the spectral layer with all
            singular values fixed at 1, `"irnn"` the ReLU network that starts
            at the identity (Le et al., 2015).
        units: Integer.
        spectral_options: Dict of arguments of `SpectralRNN` alone.
        activation: Activation of the spectral and the orthogonal layer.
        **kwargs: Arguments of any recurrent layer.
    """
    if cell in ("spectral", "orthogonal"):
        options = dict(spectral_options)
        if activation is not None:
            options["activation"] = activation
        if cell == "orthogonal":
            options["sigma_mode"] = "fixed"
        return SpectralRNN(units, **options, **kwargs)
    if cell == "irnn":
        return keras.layers.SimpleRNN(
            units,
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            recurrent_initializer="identity",
            **kwargs,
        )
    layers = {
        "simple": keras.layers.SimpleRNN,
        "lstm": keras.layers.LSTM,
        "gru": keras.layers.GRU,
    }
    return layers[cell](units, **kwargs)


def train_cells(args, build_model, make, validation_size, **fit_options):
    """Trains a model for each of `args.cell` on fresh sequences of one task.

    Args:
        args: Arguments of the example, with `cell`, `seed`, `batch`,
            `iterations` and `out`.
        build_model: Function of the name of a cell and `args` that gives a
            compiled model.
        make: Function `make(size, seed=...)` that draws sequences.
        validation_size: Integer, how many sequences to validate on.
        **fit_options: Passed on to `model.fit`.

    Returns:
        Dict from the name of each cell to the path of its CSV log.
    """

    def make_data(first):
        return datasets.stream(
            make, args.batch, seed=args.seed, first_batch=first
        )

    logs = {}
    for cell in args.cell:
        keras.utils.set_random_seed(args.seed)
        write_command(args.out / cell, args)
        model = build_model(cell, args)
        model.summary()
        logs[cell] = fit_stream(
            model,
            make_data,
            args.iterations,
            args.out / cell,
            validation_data=make(validation_size, seed=args.seed + 10**6),
            **fit_options,
        )
    return logs


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
    backup, log = folder / "backup", folder / "log.csv"
    done = completed_epochs(backup)
    if not done:
        log.unlink(missing_ok=True)
    model.fit(
        make_data(done * steps),
        steps_per_epoch=steps,
        epochs=math.ceil(iterations / steps),
        shuffle=False,
        callbacks=[
            *callbacks,
            *spectrum_monitors(model),
            SecondsLogger(),
            keras.callbacks.CSVLogger(log, append=done > 0),
            keras.callbacks.TerminateOnNaN(),
            # Last: what it calls done is in the log already.
            keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False),
        ],
        **fit_options,
    )
    return log


def median_seconds(functions, repeats=7, calls=1, warmup=1):
    """Median seconds of a call of each function, all timed in turn.

    Args:
        functions: Dict of functions without arguments.
        repeats: Integer, how many turns are timed.
        calls: Integer, calls of a function in a turn.
        warmup: Integer, turns before those.

    Returns:
        Dict of floats.
    """
    seconds = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(calls):
                function()
            if turn >= warmup:
                took = (time.perf_counter() - start) / calls
                seconds[name].append(took)
    return {name: statistics.median(s) for name, s in seconds.items()}


def training_step(model, x, y):
    """A function that takes one training step on a batch."""
    return lambda: model.train_on_batch(x, y)


def report(logs, baseline, quantity, path):
    """Prints the last errors and draws all curves beside the baseline."""
    print(f"\n{quantity} without memory: {baseline:.6f}")
    for cell, log in logs.items():
        columns = plotting.read_log(log)
        print(
            f"{cell:>12}: last epoch {columns['loss'][-1]:.6f}, "
            f"validation {columns['val_loss'][-1]:.6f}"
        )
    figure = plotting.learning_curves(
        logs, baseline=baseline, log_scale=True, ylabel=quantity
    )
    figure.savefig(path, dpi=150)
    print(f"figure: {path}")


def spectrum_monitors(model):
    """A list of one `SpectrumMonitor`, empty if it had nothing to do."""
    watched = any(
        isinstance(layer, SpectralRNN)
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


def write_command(folder, args):
    """Keeps beside a log what made it: command, settings, versions, device.

    Stops the program if the folder holds a run with other settings.
    """
    folder = pathlib.Path(folder)
    path = folder / "command.json"
    settings = {
        key: str(value)
        for key, value in sorted(vars(args).items())
        if key not in NOT_SETTINGS
    }
    begun = (
        completed_epochs(folder / "backup") or (folder / "runs.csv").exists()
    )
    if begun and path.exists():
        if json.loads(path.read_text())["settings"] != settings:
            sys.exit(
                f"{folder} holds a run with other settings. Give another "
                "--out, or remove it."
            )
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "command": "python " + " ".join(sys.argv),
        "settings": settings,
        "date": time.strftime("%Y-%m-%d"),
        "python": sys.version.split()[0],
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "backend_version": backend_version(),
        "tf_spectral": tf_spectral.__version__,
        "processor": processor(),
    }
    path.write_text(json.dumps(record, indent=2) + "\n")


def backend_version():
    """The version of the library that Keras computes with."""
    return __import__(keras.backend.backend()).__version__


def processor():
    """The processor's name and the number of its cores."""
    name = "unknown"
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores"
