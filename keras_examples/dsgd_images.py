"""DSGD on images: the experiments of its paper (Flynn, 2017, section 5).

    python keras_examples/dsgd_images.py                    # 8x8 digits
    python keras_examples/dsgd_images.py --data mnist --updates 500
    python keras_examples/dsgd_images.py --mode stochastic --data mnist

A network of pixels - 300 - 10 logistic units learns one-hot labels; the loss
is the sum of squares, weights start in [-1, 1]. `--mode batch` takes steps by
the gradient of all training data: DSGD with no step size to tune, and beside
it RANDOM and SEQUENTIAL, which choose the layer without looking and whose
step is the best of a grid. `--mode stochastic` trains on batches of 128 with
DSGD_ALL, normed SGD and SGD, all with the best step of the grid. A stopped
run goes on where it was when the same command is given again. TensorFlow only.
"""

import argparse
import pathlib
import sys

import common
import dsgd_report
import fitting
import keras
import numpy as np
from dsgd_full_batch import FullBatchRun
from dsgd_full_batch import FullBatchTrainer
from dsgd_setup import SELECTIONS
from dsgd_setup import build_model
from dsgd_setup import choose_rate
from dsgd_setup import load
from dsgd_setup import make_optimizer

from tf_spectral import callbacks
from tf_spectral.losses import SumOfSquares

# As many updates as make a short first look.
UPDATES = {"digits": 100}
EPOCHS = {"digits": 10}


def norm(text):
    return "inf" if text == "inf" else int(text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--mode", choices=sorted(SELECTIONS), default="batch")
    add("--data", choices=sorted(dsgd_report.TITLES), default="digits")
    add("--methods", nargs="+", help="default: all of the mode")
    add("--norms", nargs="+", type=norm, choices=(1, 2, "inf"))
    add("--updates", type=int, help="the paper: 20,000 (batch)")
    add("--epochs", type=int, help="the paper: 500 (stochastic)")
    add("--grid-updates", type=int, help="for choosing a step size")
    add("--grid-epochs", type=int, help="for choosing a step size")
    add("--rate", type=float, help="a step size for all, without a grid")
    add("--certified-blocks", action="store_true", help="see make_optimizer")
    add("--polar-accuracy", default="standard")
    add("--units", type=int, default=300)
    add("--no-bias", action="store_true", help="as in the paper's formulas")
    add("--batch", type=int, default=128)
    add("--chunk", type=int, default=5000, help="examples in memory at once")
    add("--limit", type=int, help="how many training images to use")
    add("--evaluate-every", type=int, default=10, help="updates")
    add("--save-every", type=int, default=50, help="updates")
    add("--seed", type=int, default=0)
    add("--out", type=pathlib.Path, help="default: results/dsgd_<data>_<mode>")
    args = parser.parse_args()
    known = list(SELECTIONS[args.mode])
    args.methods = args.methods or known
    if not set(args.methods) <= set(known):
        parser.error(f"--methods of --mode {args.mode} are {known}")
    args.norms = args.norms or [1, 2, "inf"]
    args.updates = args.updates or UPDATES.get(args.data, 500)
    args.epochs = args.epochs or EPOCHS.get(args.data, 30)
    args.grid_updates = args.grid_updates or max(args.updates // 10, 10)
    args.grid_epochs = args.grid_epochs or max(args.epochs // 10, 2)
    name = f"dsgd_{args.data}_{args.mode}"
    args.out = args.out or pathlib.Path("results") / name
    return args


def run_settings(method, q, args, *names):
    """What a run depends on; a log is not continued with other values."""
    names += ("mode", "data", "rate", "units", "no_bias", "limit", "seed")
    names += ("certified_blocks", "polar_accuracy")
    values = {name: getattr(args, name) for name in names}
    return argparse.Namespace(method=method, norm=q, **values)


def train_full_batch(method, q, data, args, folder):
    settings = run_settings(method, q, args, "chunk", "grid_updates")
    common.write_command(folder, settings)
    everything = [data["train"], data["validation"]]
    model = build_model(data["train"][0].shape[1], args)
    optimizer, certified = make_optimizer(method, q, model, everything, args)
    loss = SumOfSquares(dtype="float64")
    trainer = FullBatchTrainer(model, optimizer, loss, args.chunk)
    rate = args.rate or 1.0

    def trial(rate):
        trainer.restart(rate)
        for _ in range(args.grid_updates):
            trainer.measure([data["train"]])
            trainer.step()
        return trainer.measure([data["validation"]], with_gradient=False)[0]

    if not certified and not args.rate:
        rate = choose_rate(folder, trial, settings)
    trainer.restart(rate)
    run = FullBatchRun(
        trainer, folder, certified, args.evaluate_every, args.save_every
    )
    return run.run(everything, data["test"], args.updates)


class TestAccuracy(keras.callbacks.Callback):
    """Writes the accuracy on the test data into the logs."""

    def __init__(self, test):
        super().__init__()
        self._test = test

    def on_epoch_end(self, epoch, logs=None):
        result = self.model.evaluate(
            *self._test, batch_size=500, verbose=0, return_dict=True
        )
        logs["test_accuracy"] = result["accuracy"]


def train_stochastic(method, q, data, args, folder):
    settings = run_settings(method, q, args, "batch", "grid_epochs")
    common.write_command(folder, settings)
    model = build_model(data["train"][0].shape[1], args)
    optimizer, _ = make_optimizer(method, q, model, [data["train"]], args)
    model.compile(optimizer, SumOfSquares(), metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    start = [np.array(v) for v in variables]

    def fit(rate, epochs, **options):
        keras.utils.set_random_seed(args.seed)
        for variable, value in zip(variables, start):
            variable.assign(value)
        optimizer.learning_rate = rate
        model.fit(*data["train"], args.batch, epochs, **options)

    def trial(rate):
        fit(rate, args.grid_epochs, verbose=0)
        return model.evaluate(*data["validation"], batch_size=500, verbose=0)[0]

    rate = args.rate or choose_rate(folder, trial, settings)
    saver = fitting.LoggedBackup(folder)
    log, _ = fitting.take_up(saver, model)
    watchers = [callbacks.LayerUpdateCounter()] if method != "sgd" else []
    fit(
        rate,
        args.epochs,
        validation_data=data["validation"],
        validation_batch_size=500,
        callbacks=[
            *watchers,
            TestAccuracy(data["test"]),
            fitting.SecondsLogger(),
            *fitting.savers(saver),
        ],
    )
    return log


def main():
    args = parse_arguments()
    if keras.backend.backend() != "tensorflow":
        sys.exit("This example needs KERAS_BACKEND=tensorflow.")
    batch = {"batch": "chunk", "stochastic": "batch"}[args.mode]
    common.write_command(args.out, run_settings(None, None, args, batch))
    data = load(args)
    train = {"batch": train_full_batch, "stochastic": train_stochastic}
    logs = {}
    for method in args.methods:
        for q in [2] if method == "sgd" else args.norms:
            name = method if method == "sgd" else f"{method}_{q}"
            print(f"\n{name}")
            folder = args.out / name
            logs[method, q] = train[args.mode](method, q, data, args, folder)
    report = {"batch": dsgd_report.batch, "stochastic": dsgd_report.stochastic}
    report[args.mode](logs, args)


if __name__ == "__main__":
    main()
