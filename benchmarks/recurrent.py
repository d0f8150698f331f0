"""How fast a Spectral-RNN trains, beside Keras' own recurrent layers.

    python benchmarks/recurrent.py                 # the whole table
    python benchmarks/recurrent.py --row 0         # its first row
    python benchmarks/recurrent.py --orthogonal    # orthogonal RNNs alone
    python benchmarks/recurrent.py --gated         # LSTM and GRU alone
    KERAS_BACKEND=jax python benchmarks/recurrent.py

All sides of a row are timed in turn in one process; each number is the median
of at least five. On TensorFlow each side runs with XLA and without, and the
faster one counts. Peers from PyTorch are timed where they are installed (extra
`peers`). Run it on an otherwise idle machine.
"""

import argparse
import functools
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from recurrent_orthogonal import print_orthogonal
from sides import SequentialReflectorCell
from sides import torch_layer
from timing import machine
from timing import median_seconds

from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

BACKEND = keras.backend.backend()
# Steps, units, batch, reflectors in U and in V, goal for time / SimpleRNN.
ROWS = [
    (784, 128, 128, 16, 1.05),
    (784, 256, 128, 16, 0.85),
    (300, 512, 128, 16, 0.42),
    (300, 1024, 128, 16, 0.27),
    (300, 512, 20, 16, 0.25),
]
# The same, the goal for time / the stock layer with as many gates.
GATED_ROW = (784, 128, 128, 16, 1.15)
SPECTRAL = {
    "spectral": SpectralRNN,
    "spectral lstm": SpectralLSTM,
    "spectral gru": SpectralGRU,
}


def make_layer(side, units, reflectors):
    if side in SPECTRAL:
        return SPECTRAL[side](units, reflectors=reflectors)
    if side == "sequential":
        return keras.layers.RNN(SequentialReflectorCell(units, reflectors))
    if side.startswith("torch"):
        return torch_layer(side, units)
    classes = {
        "simple": keras.layers.SimpleRNN,
        "lstm": keras.layers.LSTM,
        "gru": keras.layers.GRU,
    }
    return classes[side](units)


def make_model(side, row, jit):
    steps, units, _, reflectors, _ = row
    layer = make_layer(side, units, reflectors)
    model = keras.Sequential(
        [keras.Input((steps, 1)), layer, keras.layers.Dense(10)]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    return model


def make_batch(row):
    rng = np.random.default_rng(0)
    steps, _, batch, _, _ = row
    x = rng.random((batch, steps, 1)).astype("float32")
    return x, rng.integers(0, 10, batch)


def compilations():
    """Without and with XLA; JAX always compiles, PyTorch runs eagerly."""
    return {"tensorflow": (False, True), "jax": (True,)}.get(BACKEND, (False,))


def time_row(row, sides, repeats, forward=False):
    """Median seconds of each side, the faster of its compilations."""
    x, y = make_batch(row)
    callables = {}
    for side in sides:
        for jit in compilations():
            model = make_model(side, row, jit)
            callables[side, jit] = (
                functools.partial(model.predict_on_batch, x)
                if forward
                else functools.partial(model.train_on_batch, x, y)
            )
    medians = median_seconds(callables, repeats)
    return {
        side: min((medians[side, jit], jit) for jit in compilations())
        for side in sides
    }


def peak_megabytes(side, row_number, jit):
    """What training adds to the peak memory of the program, and the peak."""
    arguments = ["--memory-of", side, "--row", str(row_number)]
    arguments += ["--jit"] if jit else []
    printed = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(float(n) for n in printed.split()[-2:])


def print_own_peak(side, row, jit):
    model = make_model(side, row, jit)
    x, y = make_batch(row)
    # The program itself, traced and compiled, does not grow with the batch.
    model.train_on_batch(x[:2], y[:2])
    before = own_peak()
    for _ in range(5):
        model.train_on_batch(x, y)
    print(own_peak() - before, own_peak())


def own_peak():
    """Peak resident megabytes of this process (Linux)."""
    # Not `resource.getrusage`: it begins with the peak of the parent process.
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no line VmHWM")


def print_rows(rows, repeats, forward):
    sides = ["spectral", "simple", "lstm", "gru"]
    if BACKEND == "torch":
        sides += ["torch rnn", "torch lstm"]
    what = "Forward pass" if forward else "Training step"
    print(f"\n### {what}: milliseconds, and time / SimpleRNN\n")
    print("| T, units, batch, m | goal | " + " | ".join(sides) + " |")
    print("|---" * (len(sides) + 2) + "|")
    for row in rows:
        best = time_row(row, sides, repeats, forward)
        simple = best["simple"][0]
        cells = [
            f"{seconds * 1e3:.1f}{' xla' if jit else ''} "
            f"**{seconds / simple:.2f}**"
            for seconds, jit in best.values()
        ]
        goal = "" if forward else f"≤ {row[4]}"
        shape = ", ".join(str(n) for n in row[:4])
        print(f"| {shape} | {goal} | {' | '.join(cells)} |", flush=True)


def print_gated(row, repeats):
    stock = {"spectral lstm": "lstm", "spectral gru": "gru"}
    best = time_row(row, [*stock, *stock.values()], repeats)
    print("\n### Gated layers: milliseconds a training step, and their ratio\n")
    print("| T, units, batch, m | goal | spectral | stock | ratio |")
    print("|---" * 5 + "|")
    shape = ", ".join(str(n) for n in row[:4])
    for sides in stock.items():
        cells = [
            f"{side} {best[side][0] * 1e3:.1f}{' xla' * best[side][1]}"
            for side in sides
        ]
        ratio = best[sides[0]][0] / best[sides[1]][0]
        cells.append(f"**{ratio:.2f}**")
        print(f"| {shape} | ≤ {row[4]} | {' | '.join(cells)} |", flush=True)


def print_extras(repeats):
    row = ROWS[0]
    print("\n### Reflectors one after another, as the paper describes\n")
    both = time_row(row, ["spectral", "sequential"], max(5, repeats - 2))
    fast, slow = both["spectral"][0], both["sequential"][0]
    print(
        f"T, units, batch = {row[:3]}, m = {row[3]}: {slow * 1e3:.0f} ms a "
        f"training step against {fast * 1e3:.0f} ms: {slow / fast:.1f} times "
        "slower (goal: at least 10)."
    )
    if BACKEND != "tensorflow":
        return
    print("\n### Peak memory of training\n")
    for jit in (False, True):
        spectral, process = peak_megabytes("spectral", 0, jit)
        simple, simple_process = peak_megabytes("simple", 0, jit)
        print(
            f"- {'XLA' if jit else 'graph'}: beyond the loaded and traced "
            f"program, spectral {spectral:.0f} MB, SimpleRNN {simple:.0f} MB, "
            f"ratio {spectral / simple:.2f} (goal: at most 1.3); whole "
            f"process {process:.0f} MB and {simple_process:.0f} MB"
        )
    from serving import exported_step_milliseconds

    print("\n### One exported streaming step, batch 1, 128 units\n")
    for name, value in exported_step_milliseconds().items():
        print(f"- {name}: {value:.3f} ms")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--row", type=int, choices=range(len(ROWS)))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--orthogonal", action="store_true")
    parser.add_argument("--gated", action="store_true")
    parser.add_argument(
        "--length", type=int, default=1000, help="L of --orthogonal"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--jit", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print_own_peak(args.memory_of, ROWS[args.row], args.jit)
        return
    print(machine())
    if args.orthogonal:
        print_orthogonal(args.length, args.repeats, compilations())
        return
    if args.gated:
        print_gated(GATED_ROW, args.repeats)
        return
    rows = ROWS if args.row is None else [ROWS[args.row]]
    print_rows(rows, args.repeats, forward=False)
    print_rows(rows[:1], args.repeats, forward=True)
    if args.row is None:
        print_gated(GATED_ROW, args.repeats)
        print_extras(args.repeats)
        print_orthogonal(args.length, args.repeats, compilations())


if __name__ == "__main__":
    main()
