"""Recurrent layers as they come, with Adam as it comes, on many tasks.

    python keras_examples/defaults.py
    python keras_examples/defaults.py --tasks digits CBF --seeds 0
    python keras_examples/defaults.py --layers LSTM SpectralRNN small_radius

Each layer of 64 units reads sequences, a `Dense` softmax classifies its last
state, and Adam at 1e-3 and at 3e-3 takes 1,600 steps of 32 examples. What is
told is the accuracy on validation data, a quarter of the examples, of which
training saw nothing, with the last weights: nothing is chosen. Tasks have 24 to
784 steps of 1 to 65 features, and 56 to 60,000 examples; the names that end in
`_padded` have sequences of different lengths behind zeros, under a mask.

Beside the layers are variants of `SpectralRNN`, one thing other than its
defaults at a time. A stopped study goes on where it was.
"""

import functools

import keras
import numpy as np
from keras import layers

from support import arguments
from support import records
from tf_spectral import datasets
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.initializers import IdentityReflectors
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

UPDATES, BATCH = 1600, 32
TEXT_LENGTH, TEXTS = 50, 20_000

LAYERS = {
    "SimpleRNN": layers.SimpleRNN,
    "GRU": layers.GRU,
    "LSTM": layers.LSTM,
    "SpectralRNN": SpectralRNN,
    "OrthogonalRNN": OrthogonalRNN,
    "SpectralLSTM": SpectralLSTM,
    "SpectralGRU": SpectralGRU,
}
# One thing at a time other than the defaults, and what they were before.
VARIANTS = {
    "leaky_relu": {"activation": "leaky_relu"},
    "tanh": {"activation": "tanh"},
    "random_start": {"reflector_initializer": GaussianReflectors(0.03)},
    "slow_reflectors": {"reflector_initializer": IdentityReflectors(1.0)},
    "small_radius": {"sigma_radius": 0.01},
    "large_radius": {"sigma_radius": 0.3},
    "all_reflectors": {"reflectors": None},
    "before": {
        "activation": "leaky_relu",
        "reflector_initializer": GaussianReflectors(1.0),
        "sigma_radius": 0.01,
        "reflectors": None,
    },
}
LAYERS |= {
    name: functools.partial(SpectralRNN, **options)
    for name, options in VARIANTS.items()
}


def parse_arguments():
    parser = arguments.parser(__doc__, out="results/defaults", seed=False)
    add = parser.add_argument
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--layers", nargs="+", choices=LAYERS, default=list(LAYERS)[:7])
    add("--rates", nargs="+", type=float, default=[1e-3, 3e-3])
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--units", type=int, default=64)
    add("--updates", type=int, default=UPDATES)
    return arguments.parse(parser)


def split(x, y, seed):
    """Three quarters to train with, scaled to mean 0 and variance 1."""
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype("float32"), y[order]
    n = len(x) * 3 // 4
    mean, deviation = x[:n].mean(), x[:n].std()
    x = (x - mean) / deviation
    return (x[:n], y[:n]), (x[n:], y[n:])


def pixels(name, pixels_per_step, seed):
    """Images from 0 to 1 as they are, black being zero."""
    parts = datasets.pixel_images(
        name,
        validation_split=0.25,
        seed=seed,
        pixels_per_step=pixels_per_step,
    )
    return parts[:2]


def series(name, seed, padded=False):
    *parts, _ = datasets.ucr(name, seed=seed)
    x, y = (np.concatenate(arrays) for arrays in zip(*parts))
    train, validation = split(x, y, seed)
    if padded:
        return [(cut(x, seed), y) for x, y in (train, validation)]
    return train, validation


def cut(x, seed):
    """Each sequence without up to two thirds of it, behind zeros."""
    rng = np.random.default_rng(seed)
    x = np.where(x == 0, 1e-6, x).astype("float32")
    for row in x:
        length = len(row) - rng.integers(len(row) * 2 // 3)
        start = rng.integers(len(row) - length + 1)
        kept = row[start : start + length].copy()
        row[:] = 0
        row[-length:] = kept
    return x


def text(seed):
    """The next of 65 characters, from the fifty before, one-hot."""
    codes, vocabulary = datasets.characters()
    rng = np.random.default_rng(seed)
    starts = rng.integers(len(codes) - TEXT_LENGTH, size=TEXTS)
    codes = codes[starts[:, None] + np.arange(TEXT_LENGTH + 1)]
    x = np.eye(len(vocabulary), dtype="float32")[codes[:, :-1]]
    n = TEXTS * 3 // 4
    return (x[:n], codes[:n, -1]), (x[n:], codes[n:, -1])


TASKS = {
    "ItalyPowerDemand": functools.partial(series, "ItalyPowerDemand"),
    "mnist_rows": functools.partial(pixels, "mnist", 28),
    "text": text,
    "digits": functools.partial(pixels, "digits", 1),
    "ECG200": functools.partial(series, "ECG200"),
    "CBF": functools.partial(series, "CBF"),
    "CBF_padded": functools.partial(series, "CBF", padded=True),
    "FacesUCR": functools.partial(series, "FacesUCR"),
    "FacesUCR_padded": functools.partial(series, "FacesUCR", padded=True),
    "GunPoint": functools.partial(series, "GunPoint"),
    "Coffee": functools.partial(series, "Coffee"),
    "mnist_pixels": functools.partial(pixels, "mnist", 1),
}


class Batches(keras.utils.PyDataset):
    """Batches for a number of updates, each example once in an epoch."""

    def __init__(self, x, y, updates, seed):
        super().__init__()
        self.x, self.y, self.updates = x, y, updates
        rng = np.random.default_rng(seed)
        epochs = -(-updates * BATCH // len(x))
        order = [rng.permutation(len(x)) for _ in range(epochs)]
        self.order = np.concatenate(order)

    def __len__(self):
        return self.updates

    def __getitem__(self, i):
        places = self.order[i * BATCH : (i + 1) * BATCH]
        return self.x[places], self.y[places]


def build_model(name, shape, classes, padded, units):
    return keras.Sequential(
        [
            keras.Input(shape),
            *([layers.Masking()] if padded else []),
            LAYERS[name](units),
            layers.Dense(classes, "softmax"),
        ]
    )


def run(task, name, rate, seed, args):
    """One training; returns a row of `runs.csv`."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    (x, y), validation = TASKS[task](seed=seed)
    classes = int(max(y.max(), validation[1].max())) + 1
    padded = task.endswith("_padded")
    model = build_model(name, x.shape[1:], classes, padded, args.units)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # Keras takes single steps on PyTorch.
        steps_per_execution=1 if keras.backend.backend() == "torch" else 20,
    )
    batches = Batches(x, y, args.updates, seed)
    model.fit(batches, shuffle=False, verbose=0)
    loss, accuracy = model.evaluate(*validation, batch_size=500, verbose=0)
    row = {"task": task, "layer": name, "rate": rate, "seed": seed}
    return {**row, "accuracy": accuracy, "loss": loss}


def table(rows):
    """Accuracies by task, means over the seeds that all layers have."""
    values = {}
    for row in rows:
        key = float(row["rate"]), row["task"], row["layer"]
        seeds = values.setdefault(key, {})
        seeds[row["seed"]] = float(row["accuracy"])
    names = [n for n in LAYERS if any(key[2] == n for key in values)]
    tasks = [t for t in TASKS if any(key[1] == t for key in values)]
    for rate in sorted({key[0] for key in values}):
        print(f"\n| Adam({rate:g}) | seeds | " + " | ".join(names) + " |")
        print("|---" * (len(names) + 2) + "|")
        means = []
        for task in tasks:
            found = [values.get((rate, task, name), {}) for name in names]
            seeds = set.intersection(*map(set, found))
            if seeds:
                mean = [np.mean([f[seed] for seed in seeds]) for f in found]
                means.append(mean)
                print_row(f"{task} | {len(seeds)}", mean)
        if means:
            print_row("mean |", np.mean(means, axis=0))


def print_row(name, values):
    print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in values) + " |")


def main():
    args = parse_arguments()
    plan = [
        (task, name, rate, seed)
        for seed in args.seeds
        for task in args.tasks
        for rate in args.rates
        for name in args.layers
    ]
    key = ("task", "layer", "rate", "seed")
    table(records.run_all(plan, run, args, key))


if __name__ == "__main__":
    main()
