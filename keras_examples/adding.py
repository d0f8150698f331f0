"""The adding task: add two numbers marked in a long sequence of numbers.

    python keras_examples/adding.py                        # 300 steps
    python keras_examples/adding.py --length 100 --iterations 1000 \
        --cell spectral lstm irnn

One model for each `--cell`; the curves are drawn together beside the error of
always answering 1. A stopped run goes on where it was when the same command
is given again. After Zhang et al., 2018, section 7.1 (128 units).
"""

import argparse
import functools
import pathlib

import common
import keras

from tf_spectral import datasets


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cell", nargs="+", choices=common.CELLS, default=["spectral"])
    add("--length", type=int, default=300, help="steps of a sequence")
    add("--iterations", type=int, default=4000)
    add("--units", type=int, default=128)
    add("--reflectors", type=int, default=16, help="in U and in V")
    add("--sigma-radius", type=float, default=0.01)
    add("--batch", type=int, default=50)
    add("--learning-rate", type=float, default=1e-3)
    add("--seed", type=int, default=0)
    add("--jit", action="store_true", help="compile with XLA")
    add("--out", type=pathlib.Path, default=pathlib.Path("results/adding"))
    return parser.parse_args()


def build_model(cell, args):
    layer = common.recurrent_layer(
        cell,
        args.units,
        {"reflectors": args.reflectors, "sigma_radius": args.sigma_radius},
    )
    model = keras.Sequential(
        [keras.Input((args.length, 2)), layer, keras.layers.Dense(1)]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(args.learning_rate, clipnorm=1.0),
        loss="mse",
        jit_compile=args.jit,
    )
    return model


def main():
    args = parse_arguments()
    logs = common.train_cells(
        args,
        build_model,
        functools.partial(datasets.adding, length=args.length),
        validation_size=1000,
        validation_batch_size=500,
    )
    baseline = datasets.adding_baseline()
    common.report(logs, baseline, "Mean squared error", args.out / "adding.png")


if __name__ == "__main__":
    main()
