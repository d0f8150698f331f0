"""The adding task: add two numbers marked in a long sequence of numbers.

    python keras_examples/adding.py                        # 300 steps
    python keras_examples/adding.py --length 100 --iterations 1000 \
        --cell spectral lstm irnn
    python keras_examples/adding.py --sigma-radius 0.1 --halve-radius 10

One model for each `--cell`; the curves are drawn together beside the error of
always answering 1. With `--halve-radius` the band of the singular values grows
narrower as training goes on. A stopped run goes on where it was when the same
command is given again. After Zhang et al., 2018, section 7.1 (128 units).
"""

import functools

import keras

from support import arguments
from support import cells
from support import tasks
from tf_spectral import datasets
from tf_spectral.callbacks import SigmaRadiusSchedule


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/adding", jit=True)
    add = parser.add_argument
    add("--cell", nargs="+", choices=cells.CELLS, default=["spectral"])
    add("--length", type=int, default=300, help="steps of a sequence")
    add("--iterations", type=int, default=4000)
    add("--units", type=int, default=128)
    add("--reflectors", type=int, default=16, help="in U and in V")
    add("--sigma-radius", type=float, default=0.01)
    add("--halve-radius", type=int, help="epochs of 100 batches; spectral only")
    add("--batch", type=int, default=50)
    add("--learning-rate", type=float, default=1e-3)
    return arguments.parse(parser)


def is_narrowed(cell, args):
    """Whether the singular values of a cell get less and less room."""
    return cell == "spectral" and args.halve_radius is not None


def schedules(cell, args):
    """Callbacks that set the radius at the start of an epoch."""
    if not is_narrowed(cell, args):
        return []
    radius = keras.optimizers.schedules.ExponentialDecay(
        args.sigma_radius, args.halve_radius, decay_rate=0.5
    )
    return [SigmaRadiusSchedule(radius)]


def build_model(cell, args):
    options = {
        "reflectors": args.reflectors,
        "sigma_radius": args.sigma_radius,
    }
    if is_narrowed(cell, args):
        options["annealed_radius"] = True
    layer = cells.recurrent_layer(cell, args.units, options)
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
    logs = tasks.train_cells(
        args,
        build_model,
        functools.partial(datasets.adding, length=args.length),
        callbacks=schedules,
        validation_size=1000,
        validation_batch_size=500,
    )
    baseline = datasets.adding_baseline()
    tasks.report(logs, baseline, "Mean squared error", args.out / "adding.png")


if __name__ == "__main__":
    main()
