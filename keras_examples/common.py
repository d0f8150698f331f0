"""What the examples share: cells by name, what a log came from, timings."""

import csv
import json
import os
import pathlib
import statistics
import sys
import time

import fitting
import keras

import tf_spectral
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN
from tf_spectral.parametrizations import SVD

# Arguments that do not change a run that was begun, beside all lists: these say
# which runs there are.
NOT_SETTINGS = ("sets", "seeds", "iterations", "out", "export")
CELLS = (
    "spectral",
    "orthogonal",
    "ornn",
    "spectral_lstm",
    "spectral_gru",
    "simple",
    "irnn",
    "lstm",
    "gru",
)
# As tables and figures have them.
NAMES = {
    "spectral": "Spectral-RNN",
    "orthogonal": "Orthogonal RNN",
    "ornn": "oRNN",
    "spectral_lstm": "Spectral-LSTM",
    "spectral_gru": "Spectral-GRU",
    "simple": "RNN",
    "irnn": "IRNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "mlp": "MLP",
    "resnet": "ResNet",
    "spectral_mlp": "Spectral-MLP",
    "spectral_resnet": "Spectral-ResNet",
}


def recurrent_layer(cell, units, spectral_options, activation=None, **kwargs):
    """A recurrent layer of the named kind.

    Args:
        cell: One of `CELLS`. `"orthogonal"` is the spectral layer with all
            singular values fixed at 1, `"ornn"` that with one factor only
            (Mhammedi et al., 2017), `"irnn"` the ReLU network that starts at
            the identity (Le et al., 2015).
        units: Integer.
        spectral_options: Dict of arguments that the spectral layers have
            beside Keras' own; `reflectors` is an integer.
        activation: Activation of the spectral and the orthogonal layers.
        **kwargs: Arguments of any recurrent layer.
    """
    if cell in ("spectral", "orthogonal", "ornn"):
        options = dict(spectral_options)
        if activation is not None:
            options["activation"] = activation
        if cell != "spectral":
            options["sigma_mode"] = "fixed"
        if cell == "ornn":
            options["reflectors"] = (options["reflectors"], 0)
        return SpectralRNN(units, **options, **kwargs)
    if cell in ("spectral_lstm", "spectral_gru"):
        layer = SpectralLSTM if cell == "spectral_lstm" else SpectralGRU
        return layer(units, **spectral_options, **kwargs)
    if cell == "irnn":
        options = {
            "activation": "relu",
            "kernel_initializer": keras.initializers.RandomNormal(stddev=1e-3),
            "recurrent_initializer": "identity",
            **kwargs,
        }
        return keras.layers.SimpleRNN(units, **options)
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
    write_command(args.out, args)
    for cell in args.cell:
        keras.utils.set_random_seed(args.seed)
        write_command(args.out / cell, args)
        model = build_model(cell, args)
        model.summary()
        logs[cell] = fitting.fit_stream(
            model,
            make_data,
            args.iterations,
            args.out / cell,
            validation_data=make(validation_size, seed=args.seed + 10**6),
            **fit_options,
        )
    return logs


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


def count_weights(model):
    """How many numbers of a model act; Keras counts all that are there."""
    return model.count_params() - count_idle(model)


def count_idle(layer):
    """How many entries of reflectors stand before where theirs begin."""
    parts = [x for x in layer._flatten_layers() if isinstance(x, SVD)]
    return sum(m * (m - 1) // 2 for x in parts for m in x.reflectors)


def run_all(plan, run, args, key):
    """Runs many short trainings, and goes on after a stop.

    Args:
        plan: List of tuples of the values of `key`.
        run: Function of these values and `args` that trains, and returns a
            dict that has them and what was found.
        args: Arguments of the example; rows go to `args.out / "runs.csv"`.
        key: Names of the values of a tuple.

    Returns:
        List of dicts of strings: all rows, those of earlier calls too.
    """
    write_command(args.out, args)
    path = args.out / "runs.csv"
    rows = read_rows(path)
    done = {tuple(row[name] for name in key) for row in rows}
    bar = keras.utils.Progbar(len(plan), unit_name="training")
    for values in plan:
        if tuple(map(str, values)) not in done:
            row = run(*values, args)
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, row)
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
            files.sync(path)
            rows.append({name: str(value) for name, value in row.items()})
        bar.add(1)
    return rows


def read_rows(path):
    """The whole rows of `runs.csv`; half a row at its end is cut off."""
    if not path.exists():
        return []
    files.cut_table(path)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            sys.exit(
                f"{path}, line {number}: expected {len(reader.fieldnames)} "
                "values. Mend or remove the line."
            )
    return rows


def report(logs, baseline, quantity, path):
    """Prints the last errors and draws all curves beside the baseline."""
    print(f"\n{quantity} without memory: {baseline:.6f}")
    curves = {}
    for cell, log in logs.items():
        columns = plotting.read_log(log)
        print(
            f"{cell:>12}: last {fitting.STEPS} batches "
            f"{columns['loss'][-1]:.6f}, "
            f"validation {columns['val_loss'][-1]:.6f}"
        )
        columns["update"] = fitting.STEPS * (columns["epoch"] + 1)
        curves[NAMES[cell]] = columns
    figure = plotting.learning_curves(
        curves,
        baseline=baseline,
        log_scale=True,
        title=f"{quantity} over training",
        ylabel=quantity,
    )
    save_figure(figure, path)
    print(f"figure: {path}")


def write_command(folder, args, fixed=False, without=()):
    """Keeps beside results what made them: command, versions, device.

    Stops the program if the folder holds results of another command: they
    are never written over.

    Args:
        folder: Path of a folder, made if there is none.
        args: Arguments of the example.
        fixed: Whether all arguments count. If not, lists and `NOT_SETTINGS`
            may be others when the command is given again.
        without: Names of further arguments that do not count.
    """
    folder = pathlib.Path(folder)
    path = folder / "command.json"
    settings = {
        key: str(value)
        for key, value in sorted(vars(args).items())
        if key not in ("out", *without)
        and (fixed or (key not in NOT_SETTINGS and not isinstance(value, list)))
    }
    if folder.exists() and not folder.is_dir():
        sys.exit(f"{folder} is a file. Give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    # What begins with a dot was being written when a process was killed.
    results = [f.name for f in folder.iterdir() if not f.name.startswith(".")]
    if set(results) - {path.name} and settings_of(path) != settings:
        sys.exit(
            f"{folder} holds {sorted(results)}, which a command with other "
            "settings made. Give another --out, or remove it."
        )
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
    write_json(path, record)


def settings_of(path):
    """What a `command.json` says of its run; `None` if it says nothing."""
    try:
        return json.loads(path.read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_json(path, value):
    """Writes a file of JSON, whole or not at all."""
    files.write_text(path, json.dumps(value, indent=2) + "\n")


def save_figure(figure, path):
    """Writes a figure, whole or not at all."""
    with files.replaced(path) as beside:
        figure.savefig(beside, dpi=150)


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
