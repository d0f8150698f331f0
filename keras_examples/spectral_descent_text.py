"""Spectral descent and other optimizers on the next character of a text.

    python keras_examples/spectral_descent_text.py
    python keras_examples/spectral_descent_text.py --text my.txt

Spectral descent and its preconditioned forms beside SGD, Adam and Keras' Muon:
one recurrent network, the same number of updates, each optimizer with its best
step size from a grid, averaged over seeds. Without `--text` it reads
Shakespeare from $TF_SPECTRAL_DATA, or else Python's own manual, which every
installation has.

After Liu, Hsieh and Cevher, "A novel optimization method for recurrent neural
network by non-Euclidean geometry", and Carlson et al., 2015.
"""

import os
import pathlib
import pydoc_data.topics
import tempfile

import keras
import numpy as np

from support import arguments
from support import records
from support.timing import median_seconds
from support.timing import training_step
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.callbacks import LipschitzEstimator
from tf_spectral.optimizers import SpectralDescent

# Optimizer by learning rate, and the grid that the rate is first sought on. A
# rate of 1 with measured constants is the one that theory asks for.
METHODS = {
    "sgd": (keras.optimizers.SGD, (0.1, 0.3, 1.0)),
    "adam": (keras.optimizers.Adam, (3e-3, 1e-2, 3e-2)),
    "muon": (
        lambda rate: keras.optimizers.Muon(rate, adam_lr_ratio=0.1),
        (1e-2, 3e-2, 0.1),
    ),
    "spectral": (SpectralDescent, (3.0, 10.0, 30.0)),
    "spectral_global": (SpectralDescent, (10.0, 100.0, 1000.0)),
    "spectral_constant": (
        lambda rate: SpectralDescent(rate, lipschitz=1.0),
        (0.003, 0.01, 0.03),
    ),
    "spectral_rms": (
        lambda rate: SpectralDescent(rate, lipschitz=1.0, preconditioner="rms"),
        (1e-5, 3e-5, 1e-4),
    ),
    "spectral_adagrad": (
        lambda rate: SpectralDescent(
            rate, lipschitz=1.0, preconditioner="adagrad"
        ),
        (1e-4, 3e-4, 1e-3),
    ),
}
NAMES = {
    "sgd": "SGD",
    "adam": "Adam",
    "muon": "Muon",
    "spectral": "spectral, vector constants",
    "spectral_global": "spectral, global constants",
    "spectral_constant": "spectral, one constant",
    "spectral_rms": "RMSspectral",
    "spectral_adagrad": "ADAspectral",
}
# Batches in a row of the log.
STEPS = 50


def parse_arguments():
    parser = arguments.parser(
        __doc__, out="results/spectral_descent/text", seed=False
    )
    add = parser.add_argument
    add("--text", help="a text file")
    add("--units", type=int, default=128)
    add("--length", type=int, default=50)
    add("--batch", type=int, default=32)
    add("--updates", type=int, default=2000)
    add("--grid-updates", type=int, default=400)
    add("--seeds", type=int, default=3)
    methods = list(METHODS)
    add("--method", nargs="+", choices=methods, default=methods)
    return arguments.parse(parser)


def read_text(path):
    """Numbers of characters, and the characters."""
    data = pathlib.Path(os.environ.get("TF_SPECTRAL_DATA", "."))
    if path is not None or (data / "tinyshakespeare" / "input.txt").is_file():
        return datasets.characters(path)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "input.txt"
        text = "\n".join(pydoc_data.topics.topics.values())
        file.write_text(text, encoding="utf-8")
        return datasets.characters(file)


def build_model(method, rate, classes, seed, args):
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((args.length,), dtype="int32"),
            keras.layers.Embedding(
                classes,
                classes,
                embeddings_initializer="identity",
                trainable=False,
            ),
            keras.layers.SimpleRNN(
                args.units,
                recurrent_initializer="orthogonal",
                return_sequences=True,
            ),
            keras.layers.Dense(classes),
        ]
    )
    make, _ = METHODS[method]
    model.compile(
        optimizer=make(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def batches(x, y, seed, args):
    """Endless batches of windows, drawn without regard to their order."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(x))
        for start in range(0, len(x) - args.batch + 1, args.batch):
            chosen = order[start : start + args.batch]
            yield x[chosen], y[chosen]


def estimators(method, x, y, args):
    tier = {"spectral": "vector", "spectral_global": "global"}.get(method)
    if tier is None:
        return []
    batch = x[: args.batch], y[: args.batch]
    return [LipschitzEstimator(*batch, every=50, tier=tier)]


def fit(method, rate, seed, parts, classes, args, updates=None):
    """Trains one model; returns the columns of its log."""
    (x, y), validation = parts
    model = build_model(method, rate, classes, seed, args)
    history = model.fit(
        batches(x, y, seed, args),
        steps_per_epoch=STEPS,
        epochs=(updates or args.updates) // STEPS,
        callbacks=[
            *estimators(method, x, y, args),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=0,
    ).history
    loss = np.array(history["loss"])
    rows = len(loss)
    columns = {"update": STEPS * np.arange(1.0, rows + 1), "loss": loss}
    final = model.evaluate(*validation, batch_size=256, verbose=0)
    columns["val_loss"] = np.array([np.nan] * (rows - 1) + [final])
    print(f"{NAMES[method]:>30}, rate {rate:g}, seed {seed}: {final:.4f}")
    return columns


def best_rate(method, parts, classes, args):
    """The rate with the least validation loss, and the losses of all.

    Where the best one is at an end of the grid, the grid goes on there.
    """
    grid = {}

    def trial(rate):
        run = fit(method, rate, 0, parts, classes, args, args.grid_updates)
        value = run["val_loss"][-1]
        grid[rate] = float(value) if np.isfinite(value) else float("inf")

    for rate in METHODS[method][1]:
        trial(rate)
    for _ in range(6):
        best = min(grid, key=grid.get)
        if best == min(grid):
            trial(best / 3)
        elif best == max(grid):
            trial(best * 3)
        else:
            break
    return min(grid, key=grid.get), grid


def mean_of(runs):
    rows = min(len(run["loss"]) for run in runs)
    columns = {
        name: np.mean([run[name][:rows] for run in runs], axis=0)
        for name in ("update", "loss")
    }
    final = [run["val_loss"][-1] for run in runs]
    columns["val_loss"], columns["deviation"] = np.mean(final), np.std(final)
    return columns


def step_seconds(parts, classes, summary, args):
    """Median seconds of a training step of each method, timed in turn."""
    (x, y), _ = parts
    batch = x[: args.batch], y[: args.batch]
    steps = {}
    for method, found in summary.items():
        model = build_model(method, found["rate"], classes, 0, args)
        model.fit(*batch, callbacks=estimators(method, *batch, args), verbose=0)
        steps[method] = training_step(model, *batch)
    return median_seconds(steps, calls=10)


def report(curves, summary, seconds, args):
    print("\n| optimizer | rate | validation loss | milliseconds a step |")
    print("|---|---|---|---|")
    for method, columns in curves.items():
        summary[method]["val_loss"] = columns["val_loss"]
        summary[method]["milliseconds"] = 1e3 * seconds[method]
        print(
            f"| {NAMES[method]} | {summary[method]['rate']:g} | "
            f"{columns['val_loss']:.4f} ({columns['deviation']:.4f}) | "
            f"{1e3 * seconds[method]:.2f} |"
        )
        log = np.stack([columns["update"], columns["loss"]], axis=1)
        path = args.out / f"{method}.csv"
        with files.replaced(path) as beside:
            np.savetxt(
                beside, log, "%.6g", ",", header="update,loss", comments=""
            )
    path = args.out / "summary.json"
    records.write_json(path, summary)
    draw(curves, seconds, args)


def draw(curves, seconds, args):
    """Losses over the updates, and over the time that they take."""
    logs = {
        NAMES[method]: {name: columns[name] for name in ("update", "loss")}
        for method, columns in curves.items()
    }
    figure = plotting.update_curves(logs, ylabel="Loss (nats a character)")
    records.save_figure(figure, args.out / "loss.png")
    logs = {
        NAMES[method]: {
            "update": columns["update"] * seconds[method],
            "loss": columns["loss"],
        }
        for method, columns in curves.items()
    }
    figure = plotting.update_curves(
        logs,
        title="Loss over time",
        xlabel="Seconds of training",
        ylabel="Loss (nats a character)",
    )
    records.save_figure(figure, args.out / "loss_by_time.png")
    print(f"figures: {args.out}/*.png")


def main():
    args = parse_arguments()
    records.write_command(args.out, args, fixed=True)
    tokens, vocabulary = read_text(args.text)
    cut = int(0.9 * len(tokens))
    parts = [
        datasets.stateful_batches(part, args.batch, args.length)
        for part in (tokens[:cut], tokens[cut:])
    ]
    print(f"{len(tokens)} characters, {len(vocabulary)} different ones")
    curves, summary = {}, {}
    for method in args.method:
        rate, grid = best_rate(method, parts, len(vocabulary), args)
        runs = [
            fit(method, rate, seed, parts, len(vocabulary), args)
            for seed in range(args.seeds)
        ]
        curves[method] = mean_of(runs)
        summary[method] = {"rate": rate, "grid": grid}
    seconds = step_seconds(parts, len(vocabulary), summary, args)
    report(curves, summary, seconds, args)


if __name__ == "__main__":
    main()
