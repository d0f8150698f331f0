"""SpectralDense beside Keras' Dense: a training step of a stack of layers.

    python benchmarks/dense.py                         # the table
    python benchmarks/dense.py --units 512 --batch 32 --reflectors 8
    python benchmarks/dense.py --sides low_rank matrix

All sides of a row are timed in turn in one process; each number is the median
of at least five runs. On TensorFlow each side runs with XLA and without, and
the faster one counts. Run it on an otherwise idle machine.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from timing import machine
from timing import median_seconds

from tf_spectral.layers import SpectralDense

BACKEND = keras.backend.backend()
# Units, batch, and reflectors on each side.
SIZES = (
    (128, 128, 16),
    (128, 1024, 16),
    (256, 128, 16),
    (256, 1024, 16),
    (512, 128, 16),
    (512, 1024, 16),
    (1024, 128, 16),
    (1024, 1024, 16),
    (1024, 1024, 64),
)
FORMS = {"spectral": "auto", "low_rank": "low_rank", "matrix": "dense"}


def make_step(side, units, batch, reflectors, layers, jit):
    """A function that takes one training step on a batch in memory."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((units,))])
    for _ in range(layers):
        model.add(
            keras.layers.Dense(units)
            if side == "dense"
            else SpectralDense(units, reflectors=reflectors, form=FORMS[side])
        )
        model.add(keras.layers.LeakyReLU(0.2))
    model.compile("adam", "mse", jit_compile=jit)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, batch, units)).astype("float32")
    return lambda: model.train_on_batch(x, y)


def measure(size, sides, layers, repeats):
    """Seconds of each side and whether XLA was the faster one."""
    compilations = (False, True) if BACKEND == "tensorflow" else ("auto",)
    steps = {
        (side, jit): make_step(side, *size, layers, jit)
        for side in sides
        for jit in compilations
    }
    best = {}
    for (side, jit), value in median_seconds(steps, repeats).items():
        if side not in best or value < best[side][0]:
            best[side] = (value, jit is True)
    return best


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("units", "batch", "reflectors"):
        parser.add_argument(f"--{name}", type=int, help="all three, or none")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=FORMS,
        default=["spectral"],
        help="what is timed beside Dense: the layer by its form",
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    given = (args.units, args.batch, args.reflectors)
    if None in given and any(given):
        parser.error("--units, --batch and --reflectors go together")
    sizes = SIZES if None in given else (given,)
    sides = ["dense", *args.sides]
    print(machine())
    print(f"\n{args.layers} layers, milliseconds a step, and time / Dense\n")
    print("| units, batch, m | " + " | ".join(sides) + " |")
    print("|---" * (len(sides) + 1) + "|")
    for size in sizes:
        best = measure(size, sides, args.layers, args.repeats)
        cells = (
            f"{1e3 * value:.2f}{' xla' if jit else ''} "
            f"**{value / best['dense'][0]:.2f}**"
            for value, jit in best.values()
        )
        print(
            f"| {', '.join(map(str, size))} | {' | '.join(cells)} |", flush=True
        )


if __name__ == "__main__":
    main()
