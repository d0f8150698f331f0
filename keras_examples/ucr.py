"""Recurrent networks on the UCR time series, set by set.

    python keras_examples/ucr.py                       # every set found
    python keras_examples/ucr.py --sets CBF ECG200 --seeds 5
    python keras_examples/ucr.py --rates 1e-3 1e-2 --noise 0 0.3
    python keras_examples/ucr.py --folder my/series    # one's own sets

Table 4 of Zhang et al. (2018): RNN, LSTM, oRNN (one orthogonal factor of 16
reflectors) and Spectral-RNN (16 in U, 16 in V), all with 32 units. A series of
length L is read in L / n steps of n values, n the largest divisor of L up to
its square root. Accuracy is the test accuracy at the smallest validation
error, and of epochs that err alike at the smallest validation loss; the mean
over seeds. Of several numbers of epochs, learning rates and standard
deviations of the noise that training adds to the values, one triple is chosen
for each set and cell: that of the smallest mean validation error, and of equal
ones that of the smallest mean validation loss. What is finished is kept in
`runs.csv`; a stopped run goes on from there, and one with other choices is
added.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from support import arguments
from support import cells
from support import records
from support import ucr_paper
from tf_spectral import datasets
from tf_spectral import files
from tf_spectral.initializers import GaussianReflectors

CELLS = ("simple", "lstm", "ornn", "spectral")
# What is chosen by validation.
CHOICES = ("epochs", "learning_rate", "noise")
KEY = ("set", "cell", *CHOICES, "seed")
FIELDS = (*KEY, "accuracy", "validation", "loss", "best_epoch", "weights")


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/ucr", seed=False)
    add = parser.add_argument
    add("--folder", help="default: $TF_SPECTRAL_DATA/ucr")
    add("--sets", nargs="+", help="default: all that are found")
    add("--cell", nargs="+", choices=CELLS, default=list(CELLS))
    add("--seeds", type=int, default=3)
    add("--units", type=int, default=32)
    add("--reflectors", type=int, default=16)
    add("--reflector-scale", type=float, default=0.1)
    add("--sigma-radius", type=float, default=0.1)
    add("--rates", type=float, nargs="+", default=[3e-3])
    add("--noise", type=float, nargs="+", default=[0.0])
    add("--epochs", type=int, nargs="+", default=[80])
    add("--batches", type=int, default=50, help="of an epoch")
    add("--batch", type=int, default=32)
    return arguments.parse(parser)


def features_of_a_step(length):
    """The largest divisor of the length up to its square root."""
    return max(n for n in range(1, math.isqrt(length) + 1) if length % n == 0)


def load(name, seed, args):
    """Training, validation and test pairs `(x, y)`, and how many classes."""
    *parts, classes = datasets.ucr(
        name,
        folder=args.folder,
        seed=seed,
        swap=args.folder is None and name in ucr_paper.SWAPPED,
    )
    features = features_of_a_step(parts[0][0].shape[1])
    parts = [(x.reshape(len(x), -1, features), y) for x, y in parts]
    return parts, len(classes)


def batches_of(x, y, size=None):
    """An endless shuffled `tf.data.Dataset`, or without `size` one batch."""
    data = tf.data.Dataset.from_tensor_slices((x, y))
    if size is None:
        data = data.batch(len(x))
    else:
        data = data.shuffle(len(x)).repeat().batch(size, drop_remainder=True)
    options = tf.data.Options()
    # A process pinned to one core waits for its thread at the end of `fit`.
    options.autotune.enabled = False
    return data.with_options(options)


def build_model(cell, updates, rate, noise, shape, classes, args):
    options = {
        "reflectors": args.reflectors,
        "sigma_radius": args.sigma_radius,
        "reflector_initializer": GaussianReflectors(args.reflector_scale),
        "trainable_initial_state": True,
    }
    # Even a layer of no noise would draw a seed, and change the others'.
    noisy = [keras.layers.GaussianNoise(noise)] if noise else []
    model = keras.Sequential(
        [
            keras.Input(shape),
            *noisy,
            cells.recurrent_layer(cell, args.units, options),
            keras.layers.Dense(classes),
        ]
    )
    decay = keras.optimizers.schedules.CosineDecay(rate, updates)
    # Keras takes single steps on PyTorch.
    at_once = 1 if keras.backend.backend() == "torch" else args.batches
    model.compile(
        optimizer=keras.optimizers.Adam(decay, clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=at_once,
    )
    return model


def run(name, cell, epochs, rate, noise, seed, args):
    """One training; returns a row of `runs.csv`."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    (train, validation, test), classes = load(name, seed, args)
    shape = train[0].shape[1:]
    updates = epochs * args.batches
    model = build_model(cell, updates, rate, noise, shape, classes, args)
    best = keras.callbacks.EarlyStopping(
        monitor="val_error",
        mode="min",
        patience=epochs,
        restore_best_weights=True,
    )
    history = model.fit(
        batches_of(*train, min(args.batch, len(train[0]))),
        steps_per_epoch=args.batches,
        epochs=epochs,
        shuffle=False,
        validation_data=batches_of(*validation),
        callbacks=[SmallestError(), best, keras.callbacks.TerminateOnNaN()],
        verbose=0,
    ).history
    _, accuracy = model.evaluate(batches_of(*test), verbose=0)
    epoch = int(np.nanargmin(history["val_error"]))
    validation = (history["val_accuracy"][epoch], history["val_loss"][epoch])
    found = (accuracy, *validation, epoch + 1, cells.count_weights(model))
    row = (name, cell, epochs, rate, noise, seed, *found)
    return dict(zip(FIELDS, row, strict=True))


class SmallestError(keras.callbacks.Callback):
    """Logs what the best epoch has the least of: the error, then the loss."""

    def on_epoch_end(self, epoch, logs=None):
        # Less than one series of a million, whatever the loss.
        tie = 1e-6 * math.atan(logs["val_loss"])
        logs["val_error"] = 1.0 - logs["val_accuracy"] + tie


def readable(names, args):
    """The sets without missing values; the others are named and left out."""
    found = []
    for name in names:
        try:
            datasets.ucr(name, folder=args.folder)
            found.append(name)
        except ValueError as error:
            print(f"{name} is left out. {error}")
    return found


def chosen(rows):
    """The rows of the triple of `CHOICES` that validated best.

    Of a triple with fewer seeds than another a run was stopped: it is left out.
    """
    groups = {}
    for row in rows:
        group = groups.setdefault((row["set"], row["cell"]), {})
        group.setdefault(tuple(row[c] for c in CHOICES), []).append(row)

    def merit(group):
        def mean(column):
            return np.mean([float(row[column]) for row in group])

        return len(group), round(mean("validation"), 9), -mean("loss")

    return [
        row
        for group in groups.values()
        for row in max(group.values(), key=merit)
    ]


def main():
    args = parse_arguments()
    names = args.sets or readable(datasets.ucr_names(args.folder), args)
    plan = [
        (name, cell, epochs, rate, noise, seed)
        for seed in range(args.seeds)
        for name in names
        for cell in args.cell
        for epochs in args.epochs
        for rate in args.rates
        for noise in args.noise
    ]
    rows = records.run_all(plan, run, args, key=KEY)
    table = ucr_paper.table(chosen(rows), names, args.cell, CHOICES)
    files.write_text(args.out / "table.md", table)
    print("\n" + table)


if __name__ == "__main__":
    main()
