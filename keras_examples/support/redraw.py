"""Draws the figures of docs/results again, from the logs that are kept there.

    python -m keras_examples.support.redraw        # into docs/results
    python -m keras_examples.support.redraw --out folder

Figures of models and gradients that were not kept stay as they are.
"""

import argparse
import csv
import json
import pathlib
import shutil

from keras_examples import deep_mlp
from keras_examples import dsgd_images
from keras_examples import multilabel
from keras_examples import orthogonal_copying
from keras_examples import penn_treebank
from keras_examples import pixel_images
from keras_examples import spectral_descent_bounds
from keras_examples import spectral_descent_text
from support import arguments
from support import cells
from support import tasks
from support.deep_networks import KINDS
from tf_spectral import datasets
from tf_spectral import plotting

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"
NORMS = (1, 2, "inf")


def settings(folder, **others):
    """The arguments of an example, as far as its figures need them."""
    path = min(folder.rglob("command.json"))
    found = json.loads(path.read_text())["settings"]
    return argparse.Namespace(**{**found, "out": folder, **others})


def logs_of(folder, names):
    """The logs of runs in folders of these names, as far as they are there."""
    paths = {name: folder / name / "log.csv" for name in names}
    return {name: path for name, path in paths.items() if path.exists()}


def draw_recurrent(out):
    """Copying, pixel by pixel, Penn Treebank."""
    folder = out / "copying"
    baseline = datasets.copying_baseline(1000)
    path = folder / "copying.png"
    logs = logs_of(folder, cells.CELLS)
    tasks.report(logs, baseline, "Cross-entropy", path)
    digits = {"spectral": out / "pixel_digits" / "log.csv"}
    pixel_images.draw(digits, {}, settings(out / "pixel_digits"))
    for name, *metrics in (
        ("pixel_mnist", "accuracy", "loss"),
        ("pixel_digits_cells", "accuracy"),
    ):
        folder = out / name
        logs = logs_of(folder, cells.CELLS)
        pixel_images.draw(logs, {}, settings(folder), metrics)
    penn_treebank.draw(settings(out / "ptb"))


def draw_deep(out):
    """Networks of a hundred layers, and multi-label ones."""
    folder = out / "deep_mlp_mnist"
    for layers in (64, 100):
        logs = logs_of(folder, [f"{kind}_{layers}" for kind in KINDS])
        logs = {name.rsplit("_", 1)[0]: log for name, log in logs.items()}
        deep_mlp.draw(logs, settings(folder, layers=layers))
    folder = out / "multilabel_bibtex"
    with open(folder / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = list(KINDS)
    args = settings(folder, layers=[8, 32], kind=kinds)
    multilabel.report(rows, args)


def draw_dsgd(out):
    """DSGD beside other methods."""
    for name, methods in (
        ("dsgd_mnist_batch", ("dsgd",)),
        ("dsgd_mnist_methods", ("dsgd", "random", "sequential")),
        ("dsgd_mnist_stochastic", ("dsgd_all", "normed_sgd")),
    ):
        folder = out / name
        logs = {
            (method, q): folder / f"{method}_{q}" / "log.csv"
            for method in methods
            for q in NORMS
        }
        if name == "dsgd_mnist_stochastic":
            logs["sgd", None] = folder / "sgd" / "log.csv"
        args = settings(folder, norms=NORMS)
        args.limit = 0 if args.limit == "None" else int(args.limit)
        draw = dsgd_images.draw_batch
        if args.mode == "stochastic":
            draw = dsgd_images.report_stochastic
        draw(logs, args)


def draw_orthogonal(out):
    """Copying by steps on the orthogonal group."""
    for name in ("orthogonal_copying", "orthogonal_steps"):
        folder = out / name
        args = settings(folder)
        args.steps, args.length = int(args.steps), int(args.length)
        logs = {}
        for method in orthogonal_copying.METHODS:
            paths = sorted(folder.glob(f"{method}_seed*/log.csv"))
            if paths:
                logs[method] = paths
        orthogonal_copying.summarize(logs, args)


def draw_spectral_descent(out):
    """Lipschitz constants along a training, optimizers on text."""
    folder = out / "spectral_descent_bounds"
    log = plotting.read_log(folder / "log.csv")
    spectral_descent_bounds.draw(log, settings(folder))
    for name in ("spectral_descent_text", "spectral_descent_text_global"):
        folder = out / name
        summary = json.loads((folder / "summary.json").read_text())
        curves, seconds = {}, {}
        for method, found in summary.items():
            curves[method] = plotting.read_log(folder / f"{method}.csv")
            seconds[method] = found["milliseconds"] / 1e3
        spectral_descent_text.draw(curves, seconds, settings(folder))


def main():
    parser = arguments.parser(__doc__, out=str(RESULTS), seed=False)
    args = arguments.parse(parser)
    if args.out != RESULTS:
        shutil.copytree(RESULTS, args.out, dirs_exist_ok=True)
    for draw in (
        draw_recurrent,
        draw_deep,
        draw_dsgd,
        draw_orthogonal,
        draw_spectral_descent,
    ):
        draw(args.out)


if __name__ == "__main__":
    main()
