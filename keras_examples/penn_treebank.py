"""Recurrent language models of the Penn Treebank, word by word.

    python keras_examples/penn_treebank.py
    python keras_examples/penn_treebank.py --rows spectral_1 --epochs 2

Table 3 of Zhang et al. (2018): RNN and LSTM of 128 units beside Spectral-RNN
of 512 units with 32 reflectors on each side, one and two layers, sequences of
300 words that continue each other, 20 % dropout with two layers, a rate that
falls by a fifth after each epoch. Training sums over the 1,000 most frequent
words and a sample of the others (`sampled_softmax.py`); validation, test and
the final training perplexity are of the exact softmax, the weights those of
the best validation epoch. A stopped run goes on where it was when the same
command is given again.
"""

import argparse
import json

import keras
import numpy as np

from support import arguments
from support import cells
from support import fitting
from support import records
from support.sampled_softmax import SampledSoftmax
from support.timing import median_seconds
from support.timing import training_step
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral import plotting
from tf_spectral.initializers import GaussianReflectors

# Cell, layers and units of a row; recurrent weights and the perplexities of
# the training and the test part in the paper.
TABLE_3 = {
    "simple_1": ("simple", 1, 128, "16k", 68.1, 144.7),
    "lstm_1": ("lstm", 1, 128, "64k", 69.1, 130.7),
    "spectral_1": ("spectral", 1, 512, "31k", 65.4, 130.2),
    "simple_2": ("simple", 2, 128, "32k", 62.6, 142.5),
    "lstm_2": ("lstm", 2, 128, "128k", 26.1, 122.7),
    "spectral_2": ("spectral", 2, 512, "63k", 36.0, 121.3),
}
# By the number of layers: a second one adds up what the first one has added up.
SIGMA_CENTER = {1: 1.0, 2: 0.9}
# Of the pieces that are evaluated: short ones leave few words out.
EVALUATED_STEPS = 60


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/ptb")
    add = parser.add_argument
    add("--rows", nargs="+", choices=list(TABLE_3), default=list(TABLE_3))
    add("--folder", help="default: $TF_SPECTRAL_DATA/ptb")
    add("--reflectors", type=int, default=32)
    add("--reflector-scale", type=float, default=0.1)
    add("--sigma-center", type=float, help="default: as SIGMA_CENTER")
    add("--sigma-radius", type=float, default=0.1)
    add("--activation", default="leaky_relu", help="of Spectral-RNN")
    add("--dropout", type=float, default=0.2, help="with two layers")
    add("--steps", type=int, default=300, help="words of a sequence")
    add("--batch", type=int, default=10)
    add("--epochs", type=int, default=5)
    add("--learning-rate", type=float, default=5e-3)
    add("--decay", type=float, default=0.8, help="of the rate, an epoch")
    add("--frequent", type=int, default=1000, help="words always summed")
    add("--samples", type=int, default=500, help="others that are drawn")
    add("--timings", action="store_true", help="time a step, no training")
    return arguments.parse(parser)


class LanguageModel(keras.Model):
    """Embedding, recurrent layers, and the softmax that trains on a sample."""

    def __init__(self, cell, layers, units, counts, args):
        super().__init__()
        center = args.sigma_center
        if center is None:
            center = SIGMA_CENTER[layers]
        self.embedding = keras.layers.Embedding(len(counts), units)
        self.recurrent = [
            cells.recurrent_layer(
                cell,
                units,
                {
                    "reflectors": args.reflectors,
                    "sigma_center": center,
                    "sigma_radius": args.sigma_radius,
                    # One of its own each: an initializer draws once.
                    "reflector_initializer": GaussianReflectors(
                        args.reflector_scale
                    ),
                },
                activation=args.activation,
                return_sequences=True,
                stateful=True,
            )
            for _ in range(layers)
        ]
        rate = args.dropout if layers > 1 else 0.0
        self.dropouts = [keras.layers.Dropout(rate) for _ in range(layers + 1)]
        self.softmax = SampledSoftmax(
            counts, args.frequent, args.samples, args.seed
        )

    def build(self, shape):
        self.embedding.build(shape)
        shape = (*shape, self.embedding.output_dim)
        for layer in self.recurrent:
            layer.build(shape)
        self.softmax.build(shape)

    def call(self, tokens, training=None):
        hidden = self.dropouts[0](self.embedding(tokens), training=training)
        for layer, dropout in zip(self.recurrent, self.dropouts[1:]):
            hidden = dropout(layer(hidden), training=training)
        return hidden

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if training:
            return self.softmax.sampled_loss(y, y_pred)
        losses = keras.losses.sparse_categorical_crossentropy(
            y, self.softmax(y_pred), from_logits=True
        )
        return keras.ops.mean(losses)

    def recurrent_weights(self):
        """How many numbers make the recurrent matrices, as the paper counts."""
        count = 0
        for layer in self.recurrent:
            for weight in layer.trainable_variables:
                if weight.name not in ("kernel", "bias"):
                    count += int(np.prod(weight.shape))
            count -= cells.count_idle(layer)
        return count


class ResetStates(keras.callbacks.Callback):
    """Each text begins without a past."""

    def on_epoch_begin(self, epoch, logs=None):
        for layer in self.model.recurrent:
            layer.reset_states()

    def on_test_begin(self, logs=None):
        self.on_epoch_begin(0)


class PerplexityLogger(keras.callbacks.Callback):
    """Logs e to the loss, of training (sampled) and validation (exact)."""

    def on_epoch_end(self, epoch, logs=None):
        logs["perplexity"] = float(np.exp(logs["loss"]))
        logs["val_perplexity"] = float(np.exp(logs["val_loss"]))


def perplexity(model, tokens, args):
    """Of a text, by the exact softmax."""
    x, y = datasets.stateful_batches(tokens, args.batch, EVALUATED_STEPS)
    loss = model.evaluate(
        x, y, batch_size=args.batch, callbacks=[ResetStates()], verbose=0
    )
    return float(np.exp(loss))


def compiled(row, counts, args, batches=1):
    """The network of a row; its rate falls after so many batches."""
    cell, layers, units, *_ = TABLE_3[row]
    model = LanguageModel(cell, layers, units, counts, args)
    model.build((args.batch, args.steps))
    rate = keras.optimizers.schedules.ExponentialDecay(
        args.learning_rate, batches, args.decay, staircase=True
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        # XLA makes steps of Keras' own layers slower here.
        jit_compile=cell == "spectral",
    )
    return model


def train(row, parts, counts, args):
    """Fits one row of the table; returns what stands in it."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(args.seed)
    folder = args.out / row
    records.write_command(folder, args)
    x, y = datasets.stateful_batches(parts[0], args.batch, args.steps)
    model = compiled(row, counts, args, len(x) // args.batch)
    fitting.fit_epochs(
        model,
        x,
        y,
        folder,
        monitor="val_loss",
        callbacks=[ResetStates(), PerplexityLogger()],
        batch_size=args.batch,
        epochs=args.epochs,
        shuffle=False,
        validation_data=datasets.stateful_batches(
            parts[1], args.batch, EVALUATED_STEPS
        ),
        verbose=2,
    )
    found = [perplexity(model, tokens, args) for tokens in parts]
    names = ("train", "validation", "test")
    result = dict(zip(names, found), weights=model.recurrent_weights())
    records.write_json(folder / "result.json", result)
    return result


def table(out):
    """All rows that have been run, beside the paper's."""
    lines = [
        "| layers, units | recurrent weights | paper | train | paper "
        "| validation | test | paper |",
        "|---" * 8 + "|",
    ]
    for row, (cell, layers, units, *paper) in TABLE_3.items():
        path = out / row / "result.json"
        if path.exists():
            ours = json.loads(path.read_text())
            weights, train_of_paper, test_of_paper = paper
            lines.append(
                f"| {cells.NAMES[cell]} ({layers}, {units}) "
                f"| {ours['weights']:,} | {weights} | {ours['train']:.1f} "
                f"| {train_of_paper} | {ours['validation']:.1f} "
                f"| {ours['test']:.1f} | {test_of_paper} |"
            )
    return "\n".join(lines) + "\n"


def print_timings(tokens, counts, args):
    """Median milliseconds of a training step by sample and by all words."""
    x, y = datasets.stateful_batches(tokens, args.batch, args.steps)
    x, y = x[: args.batch], y[: args.batch]
    whole = argparse.Namespace(**{**vars(args), "frequent": len(counts)})
    for row in args.rows:
        steps = {
            name: training_step(compiled(row, counts, options), x, y)
            for name, options in (("sample", args), ("all words", whole))
        }
        seconds = median_seconds(steps)
        for name, second in seconds.items():
            print(f"{row:>11}, {name:<9}: {1e3 * second:.0f} ms a step")


def draw(args):
    """Perplexities over the epochs of all rows that have been run."""
    logs = {}
    for row, (cell, layers, *_) in TABLE_3.items():
        if (args.out / row / "result.json").exists():
            count = "1 layer" if layers == 1 else f"{layers} layers"
            label = f"{cells.NAMES[cell]}, {count}"
            logs[label] = args.out / row / "log.csv"
    figure = plotting.learning_curves(logs, metric="perplexity", log_scale=True)
    records.save_figure(figure, args.out / "perplexity.png")


def main():
    args = parse_arguments()
    *parts, vocabulary = datasets.penn_treebank(args.folder)
    counts = np.bincount(parts[0], minlength=len(vocabulary))
    if args.timings:
        print_timings(parts[0], counts, args)
        return
    for row in args.rows:
        train(row, parts, counts, args)
        files.write_text(args.out / "table.md", table(args.out))
    print("\n" + table(args.out))
    draw(args)


if __name__ == "__main__":
    main()
