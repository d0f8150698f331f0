"""Copying memory: repeat ten letters seen a thousand steps ago.

    python keras_examples/copying.py                       # L = 1000
    python keras_examples/copying.py --length 100 --iterations 500 \
        --cell spectral lstm simple

One model for each `--cell`; the curves are drawn together beside the
baseline of a network without memory. A stopped run goes on where it was when
the same command is given again. The setting is that of Massart and Abrol
(2022) with the recurrent matrix of Zhang et al. (2018): 190 units, modReLU,
plane rotations as a start (Henaff et al., 2016), RMSprop.
"""

import functools

import keras

from support import arguments
from support import cells
from support import tasks
from tf_spectral import datasets
from tf_spectral.initializers import RotationReflectors


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/copying", jit=True)
    add = parser.add_argument
    add("--cell", nargs="+", choices=cells.CELLS, default=["spectral"])
    add("--length", type=int, default=1000, help="steps to remember (L)")
    add("--iterations", type=int, default=4000)
    add("--units", type=int, default=190)
    add("--reflectors", type=int, default=None, help="default: units / 2")
    add("--reflector-scale", type=float, default=1.0)
    add("--sigma-radius", type=float, default=0.001)
    add("--batch", type=int, default=128)
    add("--learning-rate", type=float, default=2e-4)
    return arguments.parse(parser)


def build_model(cell, args):
    reflectors = args.reflectors or args.units // 2
    layer = cells.recurrent_layer(
        cell,
        args.units,
        {
            "reflectors": reflectors,
            "sigma_radius": args.sigma_radius,
            "use_bias": False,
            "kernel_initializer": "he_normal",
            "reflector_initializer": RotationReflectors(
                angles="cayley",
                reflector_scale=args.reflector_scale,
                seed=args.seed,
            ),
        },
        activation="modrelu",
        return_sequences=True,
    )
    steps = args.length + 20
    model = keras.Sequential(
        [
            keras.Input((steps, 10)),
            layer,
            keras.layers.Dense(9, kernel_initializer="he_normal"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.RMSprop(args.learning_rate, rho=0.99),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=args.jit,
    )
    return model


def main():
    args = parse_arguments()
    logs = tasks.train_cells(
        args,
        build_model,
        functools.partial(datasets.copying, delay=args.length),
        validation_size=256,
        validation_batch_size=args.batch,
    )
    baseline = datasets.copying_baseline(args.length)
    tasks.report(logs, baseline, "Cross-entropy", args.out / "copying.png")


if __name__ == "__main__":
    main()
