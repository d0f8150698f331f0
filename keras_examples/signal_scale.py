"""What singular value keeps a signal's size through many spectral layers.

    python keras_examples/signal_scale.py

A hundred layers of 128 at their start, all singular values 1, read standard
normal inputs. ReLUs grow with their input, so the growth of the signal by a
layer of singular value c is c times that at 1: printed is the c at which it
neither grows nor shrinks, beside the gain of `sigma_center="auto"`.
"""

import math

import keras
import numpy as np

from support import arguments
from tf_spectral import initializers
from tf_spectral.activations import activation_gain
from tf_spectral.parametrizations import SVD

STARTS = {
    "gaussian": initializers.GaussianReflectors,
    "haar": initializers.HaarReflectors,
}


def needed_center(start, reflectors, activation, args):
    """The singular value that keeps the root mean square of the signal."""
    rng = np.random.default_rng(args.seed)
    x = rng.standard_normal((args.batch, args.units)).astype("float32")
    growth = 0.0
    for layer in range(args.layers):
        svd = SVD(
            (args.units, args.units),
            reflectors=reflectors,
            sigma_mode="fixed",
            reflector_initializer=STARTS[start](seed=args.seed + layer),
        )
        x = keras.ops.convert_to_numpy(activation(x @ svd.matrix()))
        size = math.sqrt(np.mean(x**2))
        growth += math.log(size)
        x = x / size
    return math.exp(-growth / args.layers)


def main():
    parser = arguments.parser(__doc__)
    add = parser.add_argument
    add("--layers", type=int, default=100)
    add("--units", type=int, default=128)
    add("--reflectors", type=int, nargs="+", default=[16, 128])
    add("--batch", type=int, default=256)
    args = arguments.parse(parser)
    activations = {
        "ReLU": keras.layers.ReLU(),
        "leaky ReLU 0.2": keras.layers.LeakyReLU(negative_slope=0.2),
        "leaky ReLU 0.9": keras.layers.LeakyReLU(negative_slope=0.9),
    }
    gains = [math.sqrt(2), *map(activation_gain, [*activations.values()][1:])]
    print("| start | reflectors | " + " | ".join(activations) + " |")
    print("|---" * (2 + len(activations)) + "|")
    print("| auto | | " + " | ".join(f"{gain:.3f}" for gain in gains) + " |")
    for start in STARTS:
        for m in args.reflectors:
            cells = [
                f"{needed_center(start, m, activation, args):.3f}"
                for activation in activations.values()
            ]
            print(f"| {start} | {m} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
