"""How far coordinate descent leads from orthogonal, in float32."""

import keras
import numpy as np

from tf_spectral.constraints import Orthogonal
from tf_spectral.optimizers import SRCD

SIZE = 190
CHECKED = 1000
GOAL = 1e-5
# The angles of the planes a step turns have a standard deviation of 0.007,
# and of about as much where they are divided by their root mean squares.
RATE = 0.01
KINDS = {
    "random": {"selection": "random"},
    "greedy": {"selection": "greedy"},
    "cyclic": {"selection": "cyclic"},
    "random, d/2 pairs": {"selection": "random", "block_size": SIZE // 2},
    "greedy, d/2 pairs": {
        "selection": "greedy",
        "block_size": SIZE // 2,
    },
    "cyclic, d/2 pairs": {"selection": "cyclic", "block_size": SIZE // 2},
    "greedy, 0.5 % of pairs": {
        "selection": "greedy",
        "block_size": 0.005,
    },
    "random, adam": {"selection": "random", "adaptive": "adam"},
    "greedy, d/2 pairs, rmsprop": {
        "selection": "greedy",
        "block_size": SIZE // 2,
        "adaptive": "rmsprop",
        "beta_2": 0.99,
    },
}


def print_drift(steps):
    """Steps of each kind, and `||W^T W - I||_2` after every thousand."""
    print(
        f"\n### Orthogonality error in {steps} steps, d = {SIZE}\n\n"
        f"| SRCD | at the end | worst of every {CHECKED} | goal | |\n"
        "|---|---|---|---|---|"
    )
    for name, options in KINDS.items():
        errors = drift(steps, **options)
        verdict = "met" if max(errors) <= GOAL else "missed"
        print(
            f"| {name} | {errors[-1]:.2e} | {max(errors):.2e} | ≤ {GOAL:g} | "
            f"{verdict} |",
            flush=True,
        )


def drift(steps, **options):
    """Errors after every 1000 steps, each with another gradient.

    A check comes right before a correction is due, if one is.
    """
    import tensorflow as tf

    # Each kind is traced anew, as it should be.
    tf.get_logger().setLevel("ERROR")
    rng = np.random.default_rng(0)
    start = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
    # Each gradient is another part of one larger Gaussian matrix.
    bank = tf.constant(rng.standard_normal((2 * SIZE, 2 * SIZE)), "float32")
    variable = keras.Variable(start.astype("float32"))
    variable.constraint = Orthogonal()
    optimizer = SRCD(RATE, seed=0, **options)
    optimizer.build([variable])

    @tf.function(jit_compile=True)
    def run(count):
        for _ in tf.range(count):
            step = tf.cast(optimizer.iterations.value, "int32")
            corner = [step % SIZE, step // SIZE % SIZE]
            gradient = tf.slice(bank, corner, [SIZE, SIZE])
            optimizer.apply([gradient], [variable])

    errors = []
    for done in range(0, steps, CHECKED):
        run(tf.constant(min(CHECKED, steps - done)))
        w = variable.numpy().astype("float64")
        errors.append(np.linalg.norm(w.T @ w - np.eye(SIZE), ord=2))
    return errors
