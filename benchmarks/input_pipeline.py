"""What `fit` waits for: arrays, and `tf.data` without its autotuning.

    python benchmarks/input_pipeline.py                # the table
    python benchmarks/input_pipeline.py --steps 64 --batches 10 40

Epochs of one SpectralRNN on data in memory, by four ways to give the same
batches to `fit`; all are timed in turn in one process, and each number is the
median of at least five calls of `fit`. Run it on an otherwise idle machine,
with KERAS_BACKEND=tensorflow.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from timing import machine
from timing import median_seconds

from tf_spectral.layers import SpectralRNN

BATCH = 32
SIDES = ("arrays", "dataset", "no autotune", "whole epochs")


def endless(x, y, autotune):
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x))
    data = data.repeat().batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    options.autotune.enabled = autotune
    return data.with_options(options)


def make_fit(side, x, y, epochs):
    """A function that trains for some epochs."""
    batches = len(x) // BATCH
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            SpectralRNN(32, reflectors=16),
            keras.layers.Dense(2),
        ]
    )
    whole = side == "whole epochs"
    model.compile("adam", "mse", steps_per_execution=batches if whole else 1)
    options = {"epochs": epochs, "verbose": 0}
    if side == "arrays":
        return lambda: model.fit(x, y, batch_size=BATCH, **options)
    data = endless(x, y, autotune=side == "dataset")
    options.update(steps_per_epoch=batches, shuffle=False)
    return lambda: model.fit(data, **options)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="+", default=[10, 50, 250])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(machine())
    print(f"\n{args.steps} steps: milliseconds a batch, and time / arrays\n")
    print("| batches an epoch | " + " | ".join(SIDES) + " |")
    print("|---" * (len(SIDES) + 1) + "|")
    for batches in args.batches:
        rng = np.random.default_rng(0)
        shape = (batches * BATCH, args.steps, 8)
        x = rng.normal(size=shape).astype("float32")
        y = rng.normal(size=(len(x), 2)).astype("float32")
        fits = {side: make_fit(side, x, y, args.epochs) for side in SIDES}
        medians = median_seconds(fits, args.repeats)
        cells = (
            f"{1e3 * value / (args.epochs * batches):.2f} "
            f"**{value / medians['arrays']:.2f}**"
            for value in medians.values()
        )
        print(f"| {batches} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
