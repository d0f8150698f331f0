"""What a step of DSGD costs, beside Keras' own SGD, Adam and Muon.

    python benchmarks/optimizers.py                # the whole table
    python benchmarks/optimizers.py --network mlp --batch 128

A step is one call of the compiled training step on a batch that is in memory:
forward, backward and update. All sides of a row are timed in turn in one
process; each number is the median of at least five runs of some steps. On
TensorFlow each side runs with XLA and without, and the faster one counts.
Run it on an otherwise idle machine.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from timing import machine
from timing import median_seconds

from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.losses import SumOfSquares
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SpectralDescent

BACKEND = keras.backend.backend()
# Network, batch, steps in a run.
ROWS = [
    ("mlp", 128, 20),
    ("mlp", 1024, 10),
    ("deep", 128, 1),
    ("conv", 128, 5),
    ("lstm", 64, 5),
]
# The bounds have no theory for it: certified steps are left out.
WITHOUT_BOUNDS = ("lstm",)
OTHERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01),
    "Adam": lambda: keras.optimizers.Adam(0.001),
    "Muon": lambda: keras.optimizers.Muon(0.001),
    "spectral": lambda: SpectralDescent(lipschitz=100.0),
    "measured": DSGD,
    "measured q=1": lambda: DSGD(norm=1),
}
DSGD_SIDES = {
    "q=1": {"norm": 1},
    "q=inf": {"norm": "inf"},
    "q=2": {"norm": 2},
    "q=2 fast": {"norm": 2, "polar_accuracy": "fast"},
    "q=2 refresh": {"norm": 2, "norm_refresh": 100},
    "q=2 all": {"norm": 2, "selection": "all"},
    "q=2 exact": {"norm": 2, "polar_accuracy": "exact"},
}
# Spectral descent with given constants takes the polar factors of this one.
SPECTRAL_GOAL = ("q=2 all", 1.2)
# Polar factors of ten gradients of 1024 x 1024 take seconds.
SLOW = ("q=2 all", "spectral", "q=2 exact")
# XLA's singular value decomposition is slow beyond use on a processor.
WITHOUT_XLA = ("q=2 exact",)
GOALS = {
    ("q=1", 128): 1.3,
    ("q=inf", 128): 1.3,
    ("q=1", 1024): 1.2,
    ("q=inf", 1024): 1.2,
    ("q=2", 128): 3.5,
    ("q=2", 1024): 2.0,
    ("q=2 fast", 128): 2.3,
    ("q=2 fast", 1024): 1.5,
}


def make_network(name):
    """The paper's network, a deep one or a small convolutional one."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    if name == "mlp":
        uniform = keras.initializers.RandomUniform(-1, 1)
        options = {"kernel_initializer": uniform, "bias_initializer": uniform}
        layers = [
            keras.Input((784,)),
            dense(300, "sigmoid", **options),
            dense(10, "sigmoid", **options),
        ]
        return keras.Sequential(layers), SumOfSquares()
    if name == "deep":
        layers = [keras.Input((784,))]
        layers += [dense(1024, "tanh") for _ in range(10)]
    elif name == "lstm":
        layers = [keras.Input((64, 32)), keras.layers.LSTM(128)]
    else:
        conv = keras.layers.Conv2D
        layers = [
            keras.Input((28, 28, 1)),
            conv(32, 3, activation="tanh"),
            conv(64, 3, strides=2, activation="tanh"),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
        ]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    return keras.Sequential([*layers, dense(10)]), loss


def make_optimizer(side, model, loss):
    if side in OTHERS:
        return OTHERS[side]()
    options = DSGD_SIDES[side]
    record = LayerwiseSmoothness.from_model(
        model, norm=options["norm"], loss=loss
    )
    return DSGD(smoothness=record, **options)


def make_steps(side, name, batch, steps, jit):
    """A function that takes some training steps, and their model."""
    model, loss = make_network(name)
    model.compile(make_optimizer(side, model, loss), loss, jit_compile=jit)
    rng = np.random.default_rng(0)
    x = rng.random((batch, *model.input_shape[1:])).astype("float32")
    y = np.eye(10, dtype="float32")[rng.integers(0, 10, batch)]
    if BACKEND != "tensorflow":
        return lambda: [model.train_on_batch(x, y) for _ in range(steps)]
    import tensorflow as tf

    x, y = tf.constant(x), tf.constant(y)
    model.train_on_batch(x, y)
    step = tf.function(lambda: model.train_step((x, y)), jit_compile=jit)

    def run():
        for _ in range(steps):
            logs = step()
        float(logs["loss"])

    return run


def measure(name, batch, steps, sides, repeats):
    compilations = (False, True) if BACKEND == "tensorflow" else (True,)
    callables = {}
    for side in sides:
        for jit in compilations:
            if not (jit and side in WITHOUT_XLA):
                run = make_steps(side, name, batch, steps, jit)
                callables[side, jit] = run
    seconds = median_seconds(callables, repeats)
    best = {}
    for (side, jit), value in seconds.items():
        value /= steps
        if side not in best or value < best[side][0]:
            best[side] = (value, jit)
    return best


def print_row(name, batch, best):
    print(f"\n**{name}, batch {batch}**\n")
    print("| side | ms | time / SGD | goal |\n|---|---|---|---|")
    for side, (value, jit) in best.items():
        goal = GOALS.get((side, batch)) if name == "mlp" else None
        print(
            f"| {side} | {value * 1e3:.2f}{' xla' if jit else ''} | "
            f"**{value / best['SGD'][0]:.2f}** | "
            f"{'' if goal is None else f'≤ {goal}'} |",
            flush=True,
        )
    other, goal = SPECTRAL_GOAL
    if "spectral" in best and other in best:
        ratio = best["spectral"][0] / best[other][0]
        print(f"\nspectral / {other}: **{ratio:.2f}** (goal: ≤ {goal})")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", choices=("mlp", "deep", "conv", "lstm"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sides", nargs="+", help="beside SGD")
    args = parser.parse_args()
    sides = args.sides or [*DSGD_SIDES, *OTHERS]
    print(machine())
    for name, batch, steps in ROWS:
        if args.network in (None, name) and args.batch in (None, batch):
            some = [s for s in sides if name != "deep" or s not in SLOW]
            if name in WITHOUT_BOUNDS:
                some = [s for s in some if s not in DSGD_SIDES]
            some = dict.fromkeys(["SGD", *some])
            best = measure(name, batch, steps, list(some), args.repeats)
            print_row(name, batch, best)


if __name__ == "__main__":
    main()
