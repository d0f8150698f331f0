"""How much of a gradient reaches the first of many steps, before training.

    python keras_examples/gradient_decay.py
    python keras_examples/gradient_decay.py --steps 1000

The bounds on singular values are bounds of the recurrent matrix. What the
activation takes from a gradient at each step comes on top, and differs.
"""

import keras
import numpy as np

from support import arguments
from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.layers import SpectralRNN

LAYERS = {
    "SimpleRNN (tanh)": (keras.layers.SimpleRNN, "tanh"),
    "LSTM": (keras.layers.LSTM, "tanh"),
    "SpectralRNN (leaky ReLU, 0.2)": (SpectralRNN, "leaky_relu"),
    "SpectralRNN (tanh)": (SpectralRNN, "tanh"),
    "SpectralRNN (modReLU)": (SpectralRNN, "modrelu"),
    "SpectralRNN (linear)": (SpectralRNN, "linear"),
}


def parse_arguments():
    parser = arguments.parser(__doc__)
    add = parser.add_argument
    add("--steps", type=int, default=200)
    add("--units", type=int, default=64)
    return arguments.parse(parser)


def first_over_last(layer, activation, args):
    """`||dL/dh_1|| / ||dL/dh_T||` of a new network on noise."""
    keras.utils.set_random_seed(args.seed)
    model = keras.Sequential(
        [
            keras.Input((args.steps, 4)),
            layer(args.units, activation=activation),
            keras.layers.Dense(1),
        ]
    )
    rng = np.random.default_rng(args.seed)
    x = rng.normal(size=(32, args.steps, 4)).astype("float32")
    y = rng.normal(size=(32, 1)).astype("float32")
    norms = gradient_norms_over_time(model, x, y, loss="mse")
    return norms[0] / norms[-1]


def main():
    args = parse_arguments()
    print(f"Keras {keras.__version__}, {args.units} units, seed {args.seed}")
    print(f"gradient at step 1 over that at step {args.steps}:")
    for name, kind in LAYERS.items():
        print(f"{name:>30}: {first_over_last(*kind, args):.2g}", flush=True)


if __name__ == "__main__":
    main()
