"""How much of a gradient reaches the first of many steps, before training.

    python keras_examples/gradient_decay.py
    python keras_examples/gradient_decay.py --steps 200 --units 128

The bounds on singular values are bounds of the recurrent matrix. What the
activation takes from a gradient at each step comes on top, and depends on
where the states are: so it does on the inputs, and on where the matrix starts.
"""

import functools

import keras
import numpy as np

from support import arguments
from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

random = functools.partial(
    SpectralRNN, reflector_initializer=GaussianReflectors(0.1)
)
LAYERS = {
    "SimpleRNN": keras.layers.SimpleRNN,
    "LSTM": keras.layers.LSTM,
    "GRU": keras.layers.GRU,
    "SpectralRNN": SpectralRNN,
    "all reflectors": functools.partial(SpectralRNN, reflectors=None),
    "random start": random,
    "random start, all reflectors": functools.partial(random, reflectors=None),
    "leaky ReLU": functools.partial(SpectralRNN, activation="leaky_relu"),
    "leaky ReLU, random start": functools.partial(
        random, activation="leaky_relu"
    ),
    "tanh": functools.partial(SpectralRNN, activation="tanh"),
    "modReLU": functools.partial(SpectralRNN, activation="modrelu"),
    "OrthogonalRNN": OrthogonalRNN,
    "SpectralLSTM": SpectralLSTM,
    "SpectralGRU": SpectralGRU,
}
BATCH = 16


def parse_arguments():
    parser = arguments.parser(__doc__)
    add = parser.add_argument
    add("--steps", type=int, default=784)
    add("--units", type=int, default=64)
    return arguments.parse(parser)


def inputs(args):
    """Dict of sequences by name, `(batch, steps, features)`."""
    rng = np.random.default_rng(args.seed)
    noise, wide = (
        rng.normal(size=(BATCH, args.steps, n)).astype("float32")
        for n in (1, 8)
    )
    padded = noise.copy()
    padded[:, : args.steps * 3 // 4] = 0
    # As of drawings: dark, and bright now and then.
    bright = rng.random(noise.shape) < 0.2
    pixels = (bright * rng.random(noise.shape)).astype("float32")
    return {
        "noise": noise,
        "8 features": wide,
        "3/4 zeros, noise": padded,
        "sparse pixels": pixels,
    }


def first_over_last(layer, x, args):
    """`||dL/dh_1|| / ||dL/dh_T||` of a new network."""
    keras.utils.set_random_seed(args.seed)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layer(args.units),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    y = np.random.default_rng(args.seed).integers(10, size=len(x))
    norms = gradient_norms_over_time(
        model, x, y, loss="sparse_categorical_crossentropy"
    )
    return norms[0] / norms[-1]


def main():
    args = parse_arguments()
    print(f"Keras {keras.__version__}, {args.units} units, seed {args.seed}")
    print(f"gradient at step 1 over that at step {args.steps}:\n")
    sequences = inputs(args)
    print("| layer | " + " | ".join(sequences) + " |")
    print("|---" * (1 + len(sequences)) + "|")
    for name, layer in LAYERS.items():
        shares = [first_over_last(layer, x, args) for x in sequences.values()]
        row = " | ".join(f"{share:.2g}" for share in shares)
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
