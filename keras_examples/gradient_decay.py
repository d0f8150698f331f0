"""How much of a gradient reaches the first of 200 steps, before training.

    python keras_examples/gradient_decay.py

The bounds on singular values are bounds of the recurrent matrix. What the
activation takes from a gradient at each step comes on top, and differs.
"""

import keras
import numpy as np

from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.layers import SpectralRNN

STEPS, UNITS, SEED = 200, 64, 0
LAYERS = {
    "SimpleRNN (tanh)": lambda: keras.layers.SimpleRNN(UNITS),
    "LSTM": lambda: keras.layers.LSTM(UNITS),
    "SpectralRNN (leaky ReLU, 0.2)": lambda: SpectralRNN(UNITS),
    "SpectralRNN (tanh)": lambda: SpectralRNN(UNITS, activation="tanh"),
    "SpectralRNN (modReLU)": lambda: SpectralRNN(UNITS, activation="modrelu"),
    "SpectralRNN (linear)": lambda: SpectralRNN(UNITS, activation="linear"),
}


def first_over_last(make):
    """`||dL/dh_1|| / ||dL/dh_T||` of a new network on noise."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [keras.Input((STEPS, 4)), make(), keras.layers.Dense(1)]
    )
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(32, STEPS, 4)).astype("float32")
    y = rng.normal(size=(32, 1)).astype("float32")
    norms = gradient_norms_over_time(model, x, y, loss="mse")
    return norms[0] / norms[-1]


def main():
    print(f"Keras {keras.__version__}, {UNITS} units, seed {SEED}")
    print(f"gradient at step 1 over that at step {STEPS}:")
    for name, make in LAYERS.items():
        print(f"{name:>30}: {first_over_last(make):.2g}", flush=True)


if __name__ == "__main__":
    main()
