"""What the Lipschitz constants of a recurrent network cost.

    python benchmarks/bounds.py                    # both tables
    python benchmarks/bounds.py --units 128 --batch 32 --tensor-units

The vector tier is compared with one forward pass of the same network, Keras'
SimpleRNN and a Dense layer with softmax, the tensor tier with the vector tier.
All sides of a row are timed in turn in one process; each number is the median
of at least five runs. On TensorFlow each side runs with XLA and without, and
the faster one counts. Run it on an otherwise idle machine.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import ops
from timing import machine
from timing import median_seconds

from tf_spectral.bounds import rnn_lipschitz_constants

BACKEND = keras.backend.backend()
TIERS = ("vector", "global")
KERNELS = ("input", "recurrent", "output")
# Vector tier by forward pass, at the size that the goal names.
GOAL = ({"units": 128, "steps": 100, "batch": 32, "classes": 50}, 3.0)
# Doubling the units may take 16 times as long, and overhead less.
TENSOR_UNITS = (4, 8, 16, 32)
TENSOR_GROWTH = 16.0


def make_network(units, steps, classes):
    """The network as a model, and its weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((steps, classes)),
            keras.layers.SimpleRNN(units, return_sequences=True),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    return model, [ops.convert_to_tensor(w) for w in model.weights]


def make_sides(units, steps, batch, classes, tiers, forward=True):
    """Dict of functions of a batch: the forward pass and the tiers."""
    model, weights = make_network(units, steps, classes)
    kernel, recurrent, bias, output, output_bias = weights
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, steps, classes)) / classes**0.5
    x = ops.convert_to_tensor(x.astype("float32"))

    def constants(tier, weights=None):
        return lambda x: rnn_lipschitz_constants(
            kernel,
            recurrent,
            output,
            x,
            tier=tier,
            bias=bias,
            output_bias=output_bias,
            weights=weights,
        )

    sides = {tier: constants(tier) for tier in tiers}
    if forward:
        sides["vector, kernels"] = constants("vector", KERNELS)
        sides["forward"] = lambda x: model(x, training=False)
    return sides, x


def make_callable(function, x, jit):
    """A compiled function without arguments that waits for its result."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        function = tf.function(function, jit_compile=jit)
    elif BACKEND == "jax":
        import jax

        function = jax.jit(function)

    def call():
        outputs = keras.tree.flatten(function(x))
        return [ops.convert_to_numpy(output) for output in outputs]

    return call


def measure(sides, x, repeats):
    """Seconds of each side and whether XLA was the faster one."""
    compilations = (False, True) if BACKEND == "tensorflow" else (True,)
    callables = {}
    for side, function in sides.items():
        for jit in compilations:
            # XLA decomposes one matrix after the other, slowly.
            if not (jit and side == "tensor" and BACKEND == "tensorflow"):
                callables[side, jit] = make_callable(function, x, jit)
    best = {}
    for (side, jit), value in median_seconds(callables, repeats).items():
        if side not in best or value < best[side][0]:
            best[side] = (value, jit)
    return best


def print_vector(size, repeats):
    best = measure(*make_sides(**size, tiers=TIERS), repeats)
    shape = ", ".join(f"{value} {name}" for name, value in size.items())
    print(f"\n**{shape}**\n")
    print("| side | ms | time / forward | goal |\n|---|---|---|---|")
    for side, (value, jit) in best.items():
        goal = f"≤ {GOAL[1]}" if "vector" in side and size == GOAL[0] else ""
        print(
            f"| {side} | {value * 1e3:.2f}{' xla' if jit else ''} | "
            f"**{value / best['forward'][0]:.2f}** | {goal} |",
            flush=True,
        )


def print_tensor(all_units, repeats):
    print("\n**tensor tier, 10 steps, 4 sequences, 10 classes**\n")
    print(
        "| units | ms | time / vector | growth | goal |\n|---|---|---|---|---|"
    )
    earlier = None
    for units in all_units:
        size = {"units": units, "steps": 10, "batch": 4, "classes": 10}
        tiers = ("vector", "tensor")
        sides, x = make_sides(**size, tiers=tiers, forward=False)
        best = {s: v for s, (v, _) in measure(sides, x, repeats).items()}
        growth, goal = "", ""
        if earlier and units == 2 * earlier[0]:
            growth = f"{best['tensor'] / earlier[1]:.1f}"
            goal = f"≤ {TENSOR_GROWTH:.0f}"
        print(
            f"| {units} | {best['tensor'] * 1e3:.2f} | "
            f"{best['tensor'] / best['vector']:.1f} | {growth} | {goal} |",
            flush=True,
        )
        earlier = (units, best["tensor"])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, value in GOAL[0].items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--tensor-units", type=int, nargs="*", default=TENSOR_UNITS
    )
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    size = {name: getattr(args, name) for name in GOAL[0]}
    print(machine())
    print_vector(size, args.repeats)
    if args.tensor_units:
        print_tensor(args.tensor_units, args.repeats)


if __name__ == "__main__":
    main()
