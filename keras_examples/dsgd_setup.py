"""Data, network, optimizers and step sizes of `dsgd_images.py`."""

import json

import common
import keras
import numpy as np

from tf_spectral import datasets
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.losses import SumOfSquares
from tf_spectral.optimizers import DSGD

RATES = (0.001, 0.01, 0.1, 1.0, 10.0)
SELECTIONS = {
    "batch": {
        "dsgd": "greedy",
        "random": "random",
        "sequential": "sequential",
    },
    "stochastic": {"dsgd_all": "all", "normed_sgd": "all", "sgd": None},
}


def load(args):
    name = "svhn_cropped" if args.data == "svhn" else args.data
    parts = datasets.images(name, one_hot=True, seed=args.seed)
    data = dict(zip(("train", "validation", "test"), parts))
    if args.limit:
        apart = args.limit // 6
        sizes = {"train": args.limit - apart, "validation": apart}
        for part, size in sizes.items():
            # A copy, which lets go of the rest.
            data[part] = tuple(a[:size].copy() for a in data[part])
    return data


def build_model(inputs, args):
    keras.utils.set_random_seed(args.seed)
    uniform = keras.initializers.RandomUniform

    def layer(units, name):
        return keras.layers.Dense(
            units,
            activation="sigmoid",
            use_bias=not args.no_bias,
            kernel_initializer=uniform(-1.0, 1.0),
            bias_initializer=uniform(-1.0, 1.0),
            name=name,
        )

    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layer(args.units, "hidden"),
            layer(10, "output"),
        ]
    )


def input_norm(parts, q, mean):
    """The root mean square of `||x||_q` over the data, or the largest.

    Bounds of the curvature have its square as a factor, so the mean is
    allowed where the loss is that of all data.
    """
    order = np.inf if q == "inf" else q
    norms = [
        np.linalg.norm(x[i : i + 1000], ord=order, axis=1)
        for x, _ in parts
        for i in range(0, len(x), 1000)
    ]
    norms = np.concatenate(norms).astype("float64")
    return float(np.sqrt(np.mean(norms**2)) if mean else norms.max())


def make_optimizer(method, q, model, parts, args):
    """The optimizer of a method, and whether its steps are certified.

    The paper's RANDOM and SEQUENTIAL, like its normed SGD, take no notice of
    the curvature: a step size times the duality map of the gradient. With
    `--certified-blocks` RANDOM and SEQUENTIAL take DSGD's length of step, and
    the loss falls at every step of theirs, too.
    """
    selection = SELECTIONS[args.mode][method]
    if method == "sgd":
        return keras.optimizers.SGD(args.rate or 1.0), False
    bounded = method in ("dsgd", "dsgd_all") or args.certified_blocks
    smoothness = "constant"
    if bounded and method != "normed_sgd":
        smoothness = LayerwiseSmoothness.from_model(
            model,
            norm=q,
            input_norm=input_norm(parts, q, mean=args.mode == "batch"),
            # Logistic outputs and one-hot labels are in [0, 1].
            residual=1.0,
            loss=SumOfSquares(),
        )
    optimizer = DSGD(
        args.rate or 1.0,
        norm=q,
        selection=selection,
        smoothness=smoothness,
        polar_accuracy=args.polar_accuracy,
        seed=args.seed,
    )
    certified = selection != "all" and smoothness != "constant"
    return optimizer, certified and args.rate in (None, 1.0)


def choose_rate(folder, trial, settings):
    """The rate with the least validation loss; trials done are not repeated."""
    path = folder / "grid.json"
    settings = {name: str(value) for name, value in vars(settings).items()}
    grid = json.loads(path.read_text()) if path.exists() else None
    if grid is None or grid["settings"] != settings:
        grid = {"settings": settings, "validation_loss": {}}
    losses = grid["validation_loss"]
    for rate in RATES:
        if str(rate) not in losses:
            losses[str(rate)] = float(np.nan_to_num(trial(rate), nan=np.inf))
            common.write_json(path, grid)
    best = min(RATES, key=lambda rate: losses[str(rate)])
    print(f"step size {best} of {losses}")
    return best
