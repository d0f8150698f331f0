"""Networks of a hundred dense layers, with and without bounded spectra.

    python keras_examples/deep_mlp.py                          # 8x8 digits
    python keras_examples/deep_mlp.py --data mnist --layers 100

Figure 5 of Zhang et al. (2018): a plain MLP, a residual network with blocks of
two layers, and both with `SpectralDense` instead of `Dense`, 30 to 100
layers of 128. Singular values stay near `--sigma-center`, and in the second
layer of a residual branch near 0, so that each block starts as the identity:
within `--sigma-radius` of it, or drawn to it by `--sigma-penalty`.
Test accuracy is that of the best validation epoch. A stopped run goes on where
it was when the same command is given again.
"""

import keras
import numpy as np

from support import arguments
from support import cells
from support import fitting
from support import records
from support.deep_networks import KINDS
from support.deep_networks import hidden_layers
from support.timing import median_seconds
from support.timing import training_step
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.layers import SpectralDense

DEFAULTS = {
    "digits": {"layers": 30, "batch": 32, "epochs": 40, "learning_rate": 1e-3},
    "mnist": {"layers": 100, "batch": 128, "epochs": 6, "learning_rate": 1e-3},
}
DEFAULTS["fashion_mnist"] = DEFAULTS["mnist"]


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/deep_mlp_<data>", jit=True)
    add = parser.add_argument
    add("--data", choices=sorted(DEFAULTS), default="digits")
    add("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    add("--layers", type=int, help="hidden layers")
    add("--units", type=int, default=128)
    add("--reflectors", type=int, default=16)
    add("--reflector-scale", type=float, default=0.1)
    add("--sigma-center", type=float, default=1.06)
    add("--sigma-radius", type=float, default=0.1)
    add("--sigma-penalty", type=float, help="instead of bounds")
    add("--slope", type=float, default=0.2, help="of the leaky ReLU")
    add("--batch", type=int)
    add("--epochs", type=int)
    add("--learning-rate", type=float)
    add("--timings", action="store_true", help="time a step, no training")
    return arguments.parse(parser, DEFAULTS)


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
    records.write_command(folder, args)
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
        kind: training_step(build_model(kind, x.shape[1], args), x, y)
        for kind in args.kind
    }
    for kind, seconds in median_seconds(steps, calls=5).items():
        print(f"{kind:>16}: {1e3 * seconds:.1f} ms a step")


def draw(logs, args):
    """Accuracies over the epochs."""
    figure = plotting.learning_curves(
        {cells.NAMES[kind]: log for kind, log in logs.items()},
        metric="accuracy",
        title=f"Accuracy over training, {args.layers} layers",
    )
    records.save_figure(figure, args.out / f"accuracy_{args.layers}.png")


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
    records.write_command(args.out, args, without=("layers",))
    logs, lines = {}, []
    for kind in args.kind:
        logs[kind], accuracy = train(kind, data, args)
        columns = plotting.read_log(logs[kind])
        best = int(np.nanargmax(columns["val_accuracy"]))
        line = f"| {cells.NAMES[kind]} | {accuracy:.4f} | {best + 1} |"
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
