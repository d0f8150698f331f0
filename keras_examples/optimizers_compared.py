"""`DSGD()` with nothing set, beside other optimizers at several rates.

    python keras_examples/optimizers_compared.py --tasks mnist_relu
    python keras_examples/optimizers_compared.py --start 10 --seeds 0 1 2 3 4

Every optimizer trains the same networks from the same starts on the same
batches. Of the rates of an optimizer the one with the least mean error on the
validation set counts, and its error on the test set is told.

The constants of `DSGD` come from earlier trials on tasks much like the images,
the characters and the digits here: those are no test of them.
"""

import keras
import numpy as np
from keras import layers

from support import arguments
from support import records
from tf_spectral import datasets
from tf_spectral.layers import SpectralRNN
from tf_spectral.optimizers import DSGD

OPTIMIZERS = {
    "DSGD": (lambda rate: DSGD(), (1.0,)),
    "Adam": (keras.optimizers.Adam, (3e-4, 1e-3, 3e-3, 1e-2)),
    "SGD": (
        lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
        (1e-3, 1e-2, 3e-2, 1e-1),
    ),
    "Muon": (keras.optimizers.Muon, (3e-4, 1e-3, 3e-3)),
}
TEXT_LENGTH = 64


def parse_arguments():
    parser = arguments.parser(
        __doc__, out="results/optimizers_compared", seed=False
    )
    add = parser.add_argument
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--epochs", type=int, default=3)
    add("--start", type=float, default=1.0, help="factor of all kernels")
    add("--inputs", type=float, default=1.0, help="factor of real inputs")
    return arguments.parse(parser)


def classifier(inputs, *hidden, classes=10, activation="softmax"):
    return keras.Sequential(
        [keras.Input(inputs), *hidden, layers.Dense(classes, activation)]
    )


def mnist(activation, seed):
    model = classifier((784,), layers.Dense(300, activation))
    return model, datasets.images("mnist", seed=seed), 128


def mnist_relu(seed):
    return mnist("relu", seed)


def mnist_tanh(seed):
    return mnist("tanh", seed)


def deep_tanh(seed):
    hidden = [layers.Dense(128, "tanh") for _ in range(10)]
    data = datasets.images("mnist", seed=seed)
    return classifier((784,), *hidden), data, 128


def fashion_cnn(seed):
    """A part of the images, for the sake of time."""
    parts = datasets.images("fashion_mnist", flatten=False, seed=seed)
    hidden = []
    for filters in (16, 32):
        hidden += [
            layers.Conv2D(filters, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    model = classifier((28, 28, 1), *hidden, layers.Flatten())
    (x, y), *others = parts
    return model, ((x[:20000], y[:20000]), *others), 128


def digits_transformer(seed):
    """Two blocks over the eight rows of an image."""
    inputs = keras.Input((64,))
    x = layers.Dense(32)(layers.Reshape((8, 8))(inputs))
    places = layers.Embedding(8, 32)(np.arange(8)[None])
    x = x + places
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 8)(y, y)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(32)(layers.Dense(64, "gelu")(y))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    model = keras.Model(inputs, layers.Dense(10, "softmax")(x))
    return model, datasets.images("digits", seed=seed), 32


def text(layer, seed):
    """The next characters; every seed reads other places of the text."""
    ids, vocabulary = datasets.characters()
    rng = np.random.default_rng(seed)
    ends = np.array([0.8, 0.9, 1.0]) * len(ids)
    parts, first = [], 0
    for end, count in zip(ends.astype(int), (6400, 1280, 1280)):
        at = rng.integers(first, end - TEXT_LENGTH - 1, size=(count, 1))
        pieces = ids[at + np.arange(TEXT_LENGTH + 1)]
        parts.append((pieces[:, :-1], pieces[:, 1:]))
        first = end
    model = keras.Sequential(
        [
            keras.Input((TEXT_LENGTH,), dtype="int32"),
            layers.Embedding(len(vocabulary), 32),
            layer(128, return_sequences=True),
            layers.Dense(len(vocabulary), "softmax"),
        ]
    )
    return model, parts, 32


def text_lstm(seed):
    return text(layers.LSTM, seed)


def text_spectral(seed):
    return text(SpectralRNN, seed)


def bibtex(seed):
    """Several labels for each example."""
    parts = datasets.multilabel("bibtex", validation_split=1 / 6, seed=seed)
    (x, y), *_ = parts
    hidden = layers.Dense(200, "relu")
    model = classifier(
        x.shape[1:], hidden, classes=y.shape[1], activation="sigmoid"
    )
    return model, parts, 64


def ucr(seed):
    *parts, classes = datasets.ucr("FacesUCR", seed=seed)
    shape = parts[0][0].shape[1:]
    model = classifier(shape, layers.GRU(64), classes=len(classes))
    return model, parts, 16


TASKS = {
    task.__name__: task
    for task in (
        mnist_relu,
        mnist_tanh,
        deep_tanh,
        fashion_cnn,
        digits_transformer,
        text_lstm,
        text_spectral,
        bibtex,
        ucr,
    )
}


def run(task, optimizer, rate, seed, args):
    """Trains one network; errors in percent, of text and labels the loss."""
    keras.utils.set_random_seed(seed)
    model, parts, batch = TASKS[task](seed)
    for weight in model.weights:
        if "kernel" in weight.path.split("/")[-1]:
            weight.assign(args.start * weight)
    # Characters are numbers of classes and have no scale.
    if parts[0][0].dtype.kind == "f":
        parts = [(args.inputs * x, y) for x, y in parts]
    labels = task == "bibtex"
    model.compile(
        OPTIMIZERS[optimizer][0](rate),
        "binary_crossentropy" if labels else "sparse_categorical_crossentropy",
        metrics=None if labels else ["accuracy"],
        steps_per_execution=50,
    )
    model.fit(*parts[0], batch_size=batch, epochs=args.epochs, verbose=0)
    row = {"task": task, "optimizer": optimizer, "rate": rate, "seed": seed}
    for name, part in zip(("val", "test"), parts[1:]):
        logs = model.evaluate(
            *part, batch_size=256, verbose=0, return_dict=True
        )
        by_loss = labels or task.startswith("text")
        row[name] = logs["loss"] if by_loss else 100 * (1 - logs["accuracy"])
    measured = isinstance(model.optimizer, DSGD)
    row["length"] = float(model.optimizer.step_length) if measured else ""
    return row


def table(rows):
    """Of each task and optimizer the best rate and its mean test error."""
    print("| task | optimizer | rate | validation | test | +- |")
    print("|---|---|---|---|---|---|")
    for task in dict.fromkeys(row["task"] for row in rows):
        for name in OPTIMIZERS:
            found = {}
            for row in rows:
                if (row["task"], row["optimizer"]) == (task, name):
                    pair = float(row["val"]), float(row["test"])
                    found.setdefault(row["rate"], []).append(pair)
            means = {
                rate: np.nan_to_num(np.array(pairs), nan=np.inf).mean(axis=0)
                for rate, pairs in found.items()
            }
            if means:
                best = min(means, key=lambda rate: means[rate][0])
                spread = np.std([test for _, test in found[best]])
                val, test = means[best]
                print(
                    f"| {task} | {name} | {best} | {val:.3f} | {test:.3f} | "
                    f"{spread:.3f} |"
                )


def main():
    args = parse_arguments()
    plan = [
        (task, name, rate, seed)
        for task in args.tasks
        for seed in args.seeds
        for name in args.optimizers
        for rate in OPTIMIZERS[name][1]
    ]
    key = ("task", "optimizer", "rate", "seed")
    table(records.run_all(plan, run, args, key))


if __name__ == "__main__":
    main()
