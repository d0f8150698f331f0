"""Spectral descent for recurrent networks, and the constants behind it.

    python keras_examples/spectral_descent_rnn.py bounds   # a small network
    python keras_examples/spectral_descent_rnn.py text     # characters
    python keras_examples/spectral_descent_rnn.py text --text my.txt

`bounds` trains a small network by full gradients, one weight after another,
and draws every tier of the Lipschitz constants beside the largest curvature
that can be found, and the decrease that each step was sure of beside the one
it had. `text` compares spectral descent and its preconditioned forms with SGD,
Adam and Keras' Muon on the next character, the same number of updates, each
with its best step size from a grid, averaged over seeds. Without `--text` it
reads Shakespeare from $TF_SPECTRAL_DATA, or else Python's own manual, which
every installation has.

After Liu, Hsieh and Cevher, "A novel optimization method for recurrent neural
network by non-Euclidean geometry", and Carlson et al., 2015.
"""

import argparse
import pathlib

import common
import keras
import spectral_descent_bounds
import spectral_descent_text

OUT = pathlib.Path("results/spectral_descent")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", required=True)
    add = parts.add_parser("bounds").add_argument
    add("--units", type=int, default=6)
    add("--symbols", type=int, default=4, help="different inputs and labels")
    add("--length", type=int, default=8)
    add("--batch", type=int, default=32)
    add("--updates", type=int, default=300)
    add("--tier", choices=("vector", "tensor", "global"), default="vector")
    add("--activation", choices=("tanh", "sigmoid"), default="tanh")
    add("--every", type=int, default=10, help="updates between curvatures")
    add("--seed", type=int, default=0)
    add("--out", type=pathlib.Path, default=OUT / "bounds")
    add = parts.add_parser("text").add_argument
    add("--text", help="a text file")
    add("--units", type=int, default=128)
    add("--length", type=int, default=50)
    add("--batch", type=int, default=32)
    add("--updates", type=int, default=2000)
    add("--grid-updates", type=int, default=400)
    add("--seeds", type=int, default=3)
    add(
        "--method",
        nargs="+",
        choices=tuple(spectral_descent_text.METHODS),
        default=list(spectral_descent_text.METHODS),
    )
    add("--out", type=pathlib.Path, default=OUT / "text")
    return parser.parse_args()


def main():
    args = parse_arguments()
    common.write_command(args.out, args, fixed=True)
    if args.part == "bounds":
        keras.utils.set_random_seed(args.seed)
        spectral_descent_bounds.main(args)
    else:
        spectral_descent_text.main(args)


if __name__ == "__main__":
    main()
