"""Recurrent networks read images pixel by pixel and classify them.

    python keras_examples/pixel_images.py                  # 8x8 digits
    python keras_examples/pixel_images.py --data mnist     # 784 steps
    python keras_examples/pixel_images.py --data mnist --permute
    python keras_examples/pixel_images.py --cell spectral ornn lstm   # Table 2

Trains a Spectral-RNN, or the cells that are named, with a validation split,
goes back to the best validation epoch, prints a table, draws figures, exports
the first network as a SavedModel and checks it in a process that cannot import
tf_spectral. A stopped training goes on where it was when the same command is
given again. `--bound` logs the generalization bound of theorem 5 for simple
recurrent cells. After Zhang et al., 2018, section 7.2; their oRNN has twice the
units and reflectors.
"""

import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

from support import arguments
from support import cells
from support import fitting
from support import records
from support.timing import median_seconds
from support.timing import training_step
from tf_spectral import callbacks
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.initializers import IdentityReflectors

# What a run of each data set starts from. For the digits the layer is as it
# comes; MNIST is the run in docs, with a network of the paper.
DEFAULTS = {
    "digits": {
        "batch": 32,
        "epochs": 50,
        "learning_rate": 3e-3,
        "activation": "elu",
        "start": "identity",
        "reflector_scale": 0.1,
        "sigma_radius": 0.1,
    },
    "mnist": {
        "batch": 128,
        "epochs": 30,
        "learning_rate": 2e-3,
        "activation": "leaky_relu",
        "start": "random",
        "reflector_scale": 0.06,
        "input_scale": 0.1,
        "sigma_radius": 0.01,
    },
}
DEFAULTS["fashion_mnist"] = DEFAULTS["mnist"]
STARTS = {"identity": IdentityReflectors, "random": GaussianReflectors}


def parse_arguments():
    parser = arguments.parser(__doc__, jit=True)
    add = parser.add_argument
    add("--data", choices=sorted(DEFAULTS), default="digits")
    add("--cell", nargs="+", choices=cells.CELLS, default=["spectral"])
    add("--permute", action="store_true", help="scramble the pixels")
    add("--units", type=int, default=128)
    add("--reflectors", type=int, default=16, help="in U and in V")
    add("--activation", help="of the spectral and orthogonal cells")
    add("--start", choices=STARTS, help="of the recurrent matrix")
    add("--reflector-scale", type=float, help="see docs/reflector_scale.md")
    add(
        "--input-scale",
        type=float,
        help="standard deviation of the input kernel; default: Glorot's",
    )
    add("--sigma-radius", type=float)
    add("--batch", type=int)
    add("--epochs", type=int)
    add("--learning-rate", type=float)
    add("--bound", type=int, help="images that its margin is measured on")
    add("--out", type=pathlib.Path, help="default: results/pixel_<data>")
    add("--export", type=pathlib.Path, default=pathlib.Path("saved_models"))
    args = arguments.parse(parser, DEFAULTS)
    args.name = f"pixel_{args.data}" + ("_permuted" if args.permute else "")
    args.out = args.out or pathlib.Path("results") / args.name
    return args


def build_model(cell, args, batches=1):
    # As in Table 2 of the paper: one factor, which no identity is.
    times, start = (2, "random") if cell == "ornn" else (1, args.start)
    options = {
        "reflectors": times * args.reflectors,
        "sigma_radius": args.sigma_radius,
        "reflector_initializer": STARTS[start](args.reflector_scale),
    }
    kwargs = {}
    kept = cell in ("spectral", "orthogonal", "ornn")
    if kept and args.input_scale is not None:
        # These keep the length of the state: it grows with the inputs alone.
        kwargs["kernel_initializer"] = keras.initializers.RandomNormal(
            stddev=args.input_scale
        )
    model = keras.Sequential(
        [
            keras.Input((None, 1)),
            cells.recurrent_layer(
                cell, times * args.units, options, args.activation, **kwargs
            ),
            keras.layers.Dense(10),
        ],
        name=cell,
    )
    rate = keras.optimizers.schedules.CosineDecay(
        args.learning_rate, args.epochs * batches
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=args.jit,
    )
    return model


def bound_monitors(cell, x, y, args):
    """Logs what theory promises of unseen images, epoch by epoch."""
    simple = ("spectral", "orthogonal", "ornn", "simple", "irnn")
    if args.bound is None or cell not in simple:
        return []
    batch = x[: args.bound], y[: args.bound]
    return [callbacks.GeneralizationMonitor(*batch, examples=len(x))]


def train(cell, data, args):
    """Fits a network; returns it at its best epoch, and its log."""
    keras.utils.set_random_seed(args.seed)
    folder = args.out / cell
    records.write_command(folder, args)
    x, y = data["train"]
    model = build_model(cell, args, -(-len(x) // args.batch))
    model.summary()
    log = fitting.fit_epochs(
        model,
        x,
        y,
        folder,
        callbacks=bound_monitors(cell, x, y, args),
        batch_size=args.batch,
        epochs=args.epochs,
        validation_data=data["validation"],
        validation_batch_size=500,
    )
    return model, log


def table(models, logs, data):
    """Rows of Table 2: parameters, accuracies, singular values."""
    lines = [
        "| network | parameters | test accuracy | validation | best epoch "
        "| singular values |",
        "|---" * 6 + "|",
    ]
    for cell, model in models.items():
        _, accuracy = model.evaluate(*data["test"], batch_size=500, verbose=0)
        validation = plotting.read_log(logs[cell])["val_accuracy"]
        best = int(np.nanargmax(validation))
        sigma = ""
        if hasattr(model.layers[0], "singular_values"):
            values = model.layers[0].singular_values()
            values = keras.ops.convert_to_numpy(values)
            sigma = f"[{values.min():.5f}, {values.max():.5f}]"
        lines.append(
            f"| {cells.NAMES[cell]} | {cells.count_weights(model):,} "
            f"| {accuracy:.4f} | {validation[best]:.4f} | {best + 1} "
            f"| {sigma} |"
        )
    return "\n".join(lines) + "\n"


def print_timings(batch, args):
    """Median milliseconds of a training step, timed in turn."""
    steps = {
        cell: training_step(build_model(cell, args), *batch)
        for cell in dict.fromkeys((*args.cell, "simple"))
    }
    seconds = median_seconds(steps, warmup=2)
    for cell, second in seconds.items():
        print(
            f"training step, {cell:<13} {second * 1e3:.1f} ms"
            f" ({second / seconds['simple']:.2f} of SimpleRNN)"
        )


def draw(logs, flows, args, metrics=("accuracy", "loss")):
    logs = {cells.NAMES[cell]: log for cell, log in logs.items()}
    for metric in metrics:
        figure = plotting.learning_curves(logs, metric=metric)
        records.save_figure(figure, args.out / f"{metric}.png")
    spectral = cells.NAMES["spectral"]
    if spectral in logs:
        figure = plotting.singular_values(logs[spectral])
        records.save_figure(figure, args.out / "singular_values.png")
    if flows:
        figure = plotting.gradient_flow(flows)
        records.save_figure(figure, args.out / "gradient_flow.png")
    print(f"\nfigures: {args.out}/*.png")


def export(model, x, args):
    """Exports the model, and has a process without the library check it."""
    from tf_spectral.export import export_saved_model

    path = export_saved_model(model, args.export / args.name)
    print(f"exported: {path}")
    with tempfile.TemporaryDirectory() as folder:
        expected = pathlib.Path(folder) / "expected.npz"
        np.savez(expected, x=x, y=model.predict(x, verbose=0))
        check = pathlib.Path(__file__).parent / "support" / "check_export.py"
        subprocess.run(
            [sys.executable, str(check), str(path), str(expected)], check=True
        )


def main():
    args = parse_arguments()
    records.write_command(args.out, args)
    parts = datasets.pixel_images(
        args.data, permute=args.permute, seed=args.seed
    )
    data = dict(zip(("train", "validation", "test"), parts))
    batch = [part[: args.batch] for part in data["train"]]
    norms = callbacks.gradient_norms_over_time
    flows = {
        f"{cells.NAMES[cell]}, start": norms(build_model(cell, args), *batch)
        for cell in dict.fromkeys((*args.cell, "simple", "lstm"))
    }
    models, logs = {}, {}
    for cell in args.cell:
        models[cell], logs[cell] = train(cell, data, args)
        flows[f"{cells.NAMES[cell]}, trained"] = norms(models[cell], *batch)
    results = table(models, logs, data)
    files.write_text(args.out / "table.md", results)
    print("\n" + results)
    print_timings(batch, args)
    draw(logs, flows, args)
    if keras.backend.backend() == "tensorflow":
        export(models[args.cell[0]], data["test"][0][:16], args)


if __name__ == "__main__":
    main()
