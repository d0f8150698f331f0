"""Networks of a hundred dense layers, with and without bounded spectra.

    python keras_examples/deep_mlp.py                          # 8x8 digits
    python keras_examples/deep_mlp.py --data mnist --layers 100

Figure 5 of Zhang et al. (2018): a plain MLP, a residual network with blocks of
two layers, and both with `SpectralDense` in the place of `Dense`, 30 to 100
layers of 128. Singular values stay near `--sigma-center`, and in the second
layer of a residual branch near 0, so that each block starts as the identity.
Test accuracy is that of the best validation epoch. A stopped run goes on where
it was when the same command is given again.
"""

import argparse
import pathlib

import common
import fitting
import keras
import numpy as np

from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.layers import SpectralDense

KINDS = ("mlp", "resnet", "spectral_mlp", "spectral_resnet")
DEFAULTS = {
    "digits": {"layers": 30, "batch": 32, "epochs": 40, "learning_rate": 1e-3},
    "mnist": {"layers": 100, "batch": 128, "epochs": 6, "learning_rate": 1e-3},
}
DEFAULTS["fashion_mnist"] = DEFAULTS["mnist"]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", choices=sorted(DEFAULTS), default="digits")
    add("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    add("--layers", type=int, help="hidden layers")
    add("--units", type=int, default=128)
    add("--reflectors", type=int, default=16)
    add("--reflector-scale", type=float, default=0.1)
    add("--sigma-center", type=float, default=1.06)
    add("--sigma-radius", type=float, default=0.1)
    add("--slope", type=float, default=0.2, help="of the leaky ReLU")
    add("--batch", type=int)
    add("--epochs", type=int)
    add("--learning-rate", type=float)
    add("--seed", type=int, default=0)
    add("--jit", action="store_true", help="compile with XLA")
    add("--timings", action="store_true", help="time a step, no training")
    add("--out", type=pathlib.Path, help="default: results/deep_mlp_<data>")
    args = parser.parse_args()
    for name, value in DEFAULTS[args.data].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.out = args.out or pathlib.Path(f"results/deep_mlp_{args.data}")
    return args


def dense(kind, args, activation=None, sigma_center=None):
    """A layer of the width of the network, plain or spectral."""
    if not kind.startswith("spectral"):
        return keras.layers.Dense(
            args.units, activation, kernel_initializer="he_normal"
        )
    center = args.sigma_center if sigma_center is None else sigma_center
    return SpectralDense(
        args.units,
        activation,
        reflectors=args.reflectors,
        sigma_center=center,
        sigma_radius=args.sigma_radius,
        reflector_initializer=GaussianReflectors(args.reflector_scale),
    )


def hidden_layers(kind, x, args, dropout=0.0):
    """The hidden layers of a network of this kind, from the inputs on."""

    def activated(x):
        x = keras.layers.LeakyReLU(negative_slope=args.slope)(x)
        return keras.layers.Dropout(dropout)(x) if dropout else x

    first = keras.layers.Dense(args.units, kernel_initializer="he_normal")
    x = activated(first(x))
    if not kind.endswith("resnet"):
        for _ in range(args.layers - 1):
            x = activated(dense(kind, args)(x))
        return x
    for _ in range((args.layers - 1) // 2):
        branch = activated(dense(kind, args)(x))
        branch = dense(kind, args, sigma_center=0.0)(branch)
        x = activated(keras.layers.Add()([x, branch]))
    if args.layers % 2 == 0:
        x = activated(dense(kind, args)(x))
    return x


def build_model(kind, pixels, args, batches=1):
    inputs = keras.Input((pixels,))
    outputs = keras.layers.Dense(10)(hidden_layers(kind, inputs, args))
    model = keras.Model(inputs, outputs, name=kind)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                args.learning_rate, args.epochs * batches
            ),
            clipnorm=1.0,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=args.jit,
    )
    return model


class WorstSpectrum(keras.callbacks.Callback):
    """Logs the extreme singular values of all spectral layers together."""

    def on_epoch_end(self, epoch, logs=None):
        values = [
            keras.ops.convert_to_numpy(layer.singular_values())
            for layer in self.model.layers
            if isinstance(layer, SpectralDense)
        ]
        if values:
            logs["sigma_min"] = float(min(v.min() for v in values))
            logs["sigma_max"] = float(max(v.max() for v in values))


def train(kind, data, args):
    """Fits one network; returns its log and its test accuracy."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(args.seed)
    folder = args.out / f"{kind}_{args.layers}"
    common.write_command(folder, args)
    x, _ = data["train"]
    batches = -(-len(x) // args.batch)
    model = build_model(kind, x.shape[1], args, batches)
    log = fitting.fit_epochs(
        model,
        *data["train"],
        folder,
        callbacks=[WorstSpectrum()],
        batch_size=args.batch,
        epochs=args.epochs,
        validation_data=data["validation"],
        validation_batch_size=1000,
    )
    _, accuracy = model.evaluate(*data["test"], batch_size=1000, verbose=0)
    return log, accuracy


def print_timings(data, args):
    """Median milliseconds of a training step, timed in turn."""
    x, y = (part[: args.batch] for part in data["train"])
    steps = {
        kind: common.training_step(build_model(kind, x.shape[1], args), x, y)
        for kind in args.kind
    }
    for kind, seconds in common.median_seconds(steps, calls=5).items():
        print(f"{kind:>16}: {1e3 * seconds:.1f} ms a step")


def draw(logs, args):
    """Accuracies over the epochs."""
    figure = plotting.learning_curves(
        {common.NAMES[kind]: log for kind, log in logs.items()},
        metric="accuracy",
        title=f"Accuracy over training, {args.layers} layers",
    )
    common.save_figure(figure, args.out / f"accuracy_{args.layers}.png")


def main():
    args = parse_arguments()
    parts = datasets.images(args.data, seed=args.seed)
    mean, deviation = parts[0][0].mean(), parts[0][0].std()
    data = {
        name: ((x - mean) / deviation, y)
        for name, (x, y) in zip(("train", "validation", "test"), parts)
    }
    if args.timings:
        print_timings(data, args)
        return
    common.write_command(args.out, args, without=("layers",))
    logs, lines = {}, []
    for kind in args.kind:
        logs[kind], accuracy = train(kind, data, args)
        columns = plotting.read_log(logs[kind])
        best = int(np.nanargmax(columns["val_accuracy"]))
        line = f"| {common.NAMES[kind]} | {accuracy:.4f} | {best + 1} |"
        if "sigma_min" in columns:
            low, high = columns["sigma_min"].min(), columns["sigma_max"].max()
            line += f" [{low:.4f}, {high:.4f}] |"
        lines.append(line if line.count("|") == 5 else line + " |")
    table = (
        f"| {args.layers} layers | test accuracy | best validation epoch | "
        "singular values |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )
    files.write_text(args.out / f"table_{args.layers}.md", table)
    print("\n" + table)
    draw(logs, args)


if __name__ == "__main__":
    main()
