"""A Spectral-RNN reads images pixel by pixel and names what they show.

    python keras_examples/pixel_images.py                  # 8x8 digits
    python keras_examples/pixel_images.py --data mnist     # 784 steps
    python keras_examples/pixel_images.py --data mnist --permute

Trains with a validation split, goes back to the best validation epoch, prints
a table, draws figures, exports a SavedModel and checks it in a process that
cannot import tf_spectral. A stopped training goes on where it was when the
same command is given again. After Zhang et al., 2018, section 7.2.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import common
import keras
import numpy as np

from tf_spectral import callbacks
from tf_spectral import datasets
from tf_spectral import plotting
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.layers import SpectralRNN

# What a run of each data set starts from. The fewer the updates, the faster
# the reflectors have to turn; the fewer the steps, the larger each input.
DEFAULTS = {
    "digits": {
        "batch": 32,
        "epochs": 50,
        "learning_rate": 3e-3,
        "reflector_scale": 0.1,
        "input_scale": 1.4,
        "sigma_radius": 0.1,
    },
    "mnist": {
        "batch": 128,
        "epochs": 30,
        "learning_rate": 2e-3,
        "reflector_scale": 0.06,
        "input_scale": 0.1,
        "sigma_radius": 0.01,
    },
}
DEFAULTS["fashion_mnist"] = DEFAULTS["mnist"]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", choices=sorted(DEFAULTS), default="digits")
    add("--permute", action="store_true", help="scramble the pixels")
    add("--units", type=int, default=128)
    add("--reflectors", type=int, default=16, help="in U and in V")
    add("--reflector-scale", type=float, help="see docs/reflector_scale.md")
    add("--input-scale", type=float, help="deviation of the input kernel")
    add("--sigma-radius", type=float)
    add("--batch", type=int)
    add("--epochs", type=int)
    add("--learning-rate", type=float)
    add("--seed", type=int, default=0)
    add("--jit", action="store_true", help="compile with XLA")
    add("--out", type=pathlib.Path, help="default: results/pixel_<data>")
    add("--export", type=pathlib.Path, default=pathlib.Path("saved_models"))
    args = parser.parse_args()
    for name, value in DEFAULTS[args.data].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.name = f"pixel_{args.data}" + ("_permuted" if args.permute else "")
    args.out = args.out or pathlib.Path("results") / args.name
    return args


def build_model(cell, args, batches=1):
    options = {
        "reflectors": args.reflectors,
        "sigma_radius": args.sigma_radius,
        "reflector_initializer": GaussianReflectors(args.reflector_scale),
    }
    model = keras.Sequential(
        [
            keras.Input((None, 1)),
            common.recurrent_layer(
                cell,
                args.units,
                options,
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=args.input_scale
                ),
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


def train(model, data, args):
    """Fits the model; returns its log and leaves it at its best epoch."""
    log, best = args.out / "log.csv", args.out / "best.keras"
    done = common.completed_epochs(args.out / "backup")
    threshold = None
    if done:
        threshold = np.nanmax(plotting.read_log(log)["val_accuracy"])
    else:
        log.unlink(missing_ok=True)
    model.fit(
        *data["train"],
        batch_size=args.batch,
        epochs=args.epochs,
        validation_data=data["validation"],
        validation_batch_size=500,
        callbacks=[
            callbacks.SpectrumMonitor(),
            common.SecondsLogger(),
            keras.callbacks.ModelCheckpoint(
                best,
                monitor="val_accuracy",
                mode="max",
                save_best_only=True,
                initial_value_threshold=threshold,
            ),
            keras.callbacks.CSVLogger(log, append=done > 0),
            keras.callbacks.TerminateOnNaN(),
            # Last: what it calls done is in the log already.
            keras.callbacks.BackupAndRestore(
                args.out / "backup", delete_checkpoint=False
            ),
        ],
    )
    model.load_weights(best)
    return log


def print_table(model, data, seconds, log):
    _, accuracy = model.evaluate(*data["test"], batch_size=500, verbose=0)
    columns = plotting.read_log(log)
    best = int(np.nanargmax(columns["val_accuracy"]))
    sigma = keras.ops.convert_to_numpy(
        recurrent_layer_of(model).singular_values()
    )
    print(f"""
test accuracy          {accuracy:.4f} (best validation epoch: {best + 1})
validation accuracy    {columns["val_accuracy"][best]:.4f}
parameters             {model.count_params():,}
singular values        {sigma.min():.5f} to {sigma.max():.5f}""")
    for name, second in seconds.items():
        ratio = second / seconds["simple"]
        print(
            f"training step, {name:<8} {second * 1e3:.1f} ms"
            f" ({ratio:.2f} of SimpleRNN)"
        )


def recurrent_layer_of(model):
    return next(x for x in model.layers if isinstance(x, SpectralRNN))


def draw(log, flows, args):
    label = {"spectral": log}
    for metric in ("accuracy", "loss"):
        figure = plotting.learning_curves(label, metric=metric)
        figure.savefig(args.out / f"{metric}.png", dpi=150)
    figure = plotting.singular_values(log)
    figure.savefig(args.out / "singular_values.png", dpi=150)
    figure = plotting.gradient_flow(flows)
    figure.savefig(args.out / "gradient_flow.png", dpi=150)
    print(f"\nfigures: {args.out}/*.png")


def export(model, x, args):
    """Exports the model, and has a process without the library check it."""
    from tf_spectral.export import export_saved_model

    path = export_saved_model(model, args.export / args.name)
    print(f"exported: {path}")
    with tempfile.TemporaryDirectory() as folder:
        expected = pathlib.Path(folder) / "expected.npz"
        np.savez(expected, x=x, y=model.predict(x, verbose=0))
        check = pathlib.Path(__file__).with_name("check_export.py")
        subprocess.run(
            [sys.executable, str(check), str(path), str(expected)], check=True
        )


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    common.write_command(args.out, args)
    parts = datasets.pixel_images(
        args.data, permute=args.permute, seed=args.seed
    )
    data = dict(zip(("train", "validation", "test"), parts))
    x, y = data["train"]
    batches = -(-len(x) // args.batch)
    models = {
        cell: build_model(cell, args, batches)
        for cell in ("spectral", "simple", "lstm")
    }
    batch = x[: args.batch], y[: args.batch]
    flows = {
        f"{name}, start": callbacks.gradient_norms_over_time(model, *batch)
        for name, model in models.items()
    }
    model = models["spectral"]
    model.summary()
    log = train(model, data, args)
    flows["spectral, trained"] = callbacks.gradient_norms_over_time(
        model, *batch
    )
    # A copy takes the steps that are timed: the trained model stays as it is.
    timed = {**models, "spectral": build_model("spectral", args)}
    seconds = common.median_seconds(
        {
            name: common.training_step(model, *batch)
            for name, model in timed.items()
        },
        warmup=2,
    )
    print_table(model, data, seconds, log)
    draw(log, flows, args)
    if keras.backend.backend() == "tensorflow":
        export(model, data["test"][0][:16], args)


if __name__ == "__main__":
    main()
