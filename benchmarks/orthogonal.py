"""What a step on the orthogonal group costs, beside that of GeoTorch and torch.

    python benchmarks/orthogonal.py                     # the whole table
    python benchmarks/orthogonal.py --sizes 128 --sides random greedy-block
    python benchmarks/orthogonal.py --drift 100000      # rounding, no times

The step of the optimizer alone, the gradient given, in float32. All sides of
a size are timed in turn in one process; each number is the median of at least
five runs of some steps. Sides of this library run with XLA and without, and
the faster one counts. Those of PyTorch (extra `peers`) form the matrix from
its parameter, take the gradient back to it, and make a step of SGD. A side
that would take too long, by the cube of the size, is skipped. Run it on an
otherwise idle machine.
"""

import argparse
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import orthogonal_sides as sides
from timing import machine
from timing import median_seconds

SIZES = (128, 190, 256, 512, 1024, 2048, 4096)
# A run takes about this many seconds, and fewer steps than lie between two
# corrections.
RUN_SECONDS = 0.05
MOST_STEPS = 400
# What is divided, by what, each a side and a size; bound of the ratio.
GOALS = [
    (("random", 4096), ("random", 256), "≤", 4),
    (("expm", 2048), ("random", 2048), "≥", 100),
    *((("greedy-block", d), ("product", d), "≤", 1.6) for d in SIZES[3:]),
    *(
        ((exponential, d), ("greedy-block", d), "≥", 1.5)
        for d in (512, 1024)
        for exponential in ("torch-exponential", "exponential")
    ),
    *(
        ((exponential, 1024), (block, 1024), "≥", 10)
        for block in ("random-block", "cyclic-block")
        for exponential in ("torch-exponential", "exponential")
    ),
]


def time_size(d, names, args, before):
    """Seconds a step of each `(side, jit)`, skipping what takes too long.

    Args:
        d: Integer, the size.
        names: List of sides.
        args: Arguments of the program.
        before: Dict of the same for a smaller size, and that size; or `None`.
    """
    problem = sides.Problem(d, args.angle)
    callables, steps = {}, {}
    for name in names:
        for jit in (False, True) if name in sides.OWN else (False,):
            key = name, jit
            if before and too_slow(key, d, *before, args.limit):
                continue
            if name in sides.OWN:
                run = sides.own_steps(name, problem, jit)
            else:
                run = sides.peer_steps(name, problem)
            run(2)  # Traces and compiles.
            seconds = elapsed(run, 2) / 2
            if seconds > args.limit:
                print(f"(d = {d}, {name}: {seconds:.1f} s)", file=sys.stderr)
                continue
            count = int(RUN_SECONDS / seconds)
            # An even number, to end where it began.
            steps[key] = 2 * max(1, min(MOST_STEPS, count) // 2)
            callables[key] = lambda run=run, n=steps[key]: run(n)
    medians = median_seconds(callables, args.repeats, warmup=1)
    return {key: value / steps[key] for key, value in medians.items()}


def too_slow(key, d, seconds, smaller, limit):
    if key not in seconds:
        return True
    return seconds[key] * (d / smaller) ** 3 > limit


def elapsed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def faster(seconds):
    """Of each side the faster compilation: its seconds, and whether XLA."""
    best = {}
    for (name, jit), value in seconds.items():
        best[name] = min(best.get(name, (value, jit)), (value, jit))
    return best


def print_table(results, names):
    print("\n### One step: milliseconds\n")
    print("| side | " + " | ".join(f"d = {d}" for d in results) + " |")
    print("|---" * (len(results) + 1) + "|")
    for name in names:
        cells = []
        for best in results.values():
            value, jit = best.get(name, (None, False))
            cell = "skipped" if value is None else f"{value * 1e3:.3g}"
            cells.append(cell + " xla" * jit)
        print(f"| {sides.LABELS[name]} | {' | '.join(cells)} |")


def print_goals(results):
    print("\n### Goals\n")
    print("| time of | divided by that of | ratio | goal | |")
    print("|---" * 5 + "|")
    for *both, sign, bound in GOALS:
        if not all(name in results.get(d, ()) for name, d in both):
            continue
        cells = [f"{sides.LABELS[name]}, d = {d}" for name, d in both]
        above, below = (results[d][name][0] for name, d in both)
        ratio = above / below
        met = ratio <= bound if sign == "≤" else ratio >= bound
        verdict = "met" if met else "missed"
        print(
            f"| {cells[0]} | {cells[1]} | **{ratio:.2f}** | {sign} {bound} | "
            f"{verdict} |"
        )


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=SIZES)
    add("--sides", nargs="+", choices=sides.LABELS)
    add("--repeats", type=int, default=7)
    add("--limit", type=float, default=5, help="seconds of the slowest step")
    add(
        "--angle",
        type=float,
        default=1e-3,
        help="largest angle of a whole gradient step (default: 1e-3)",
    )
    add("--drift", type=int, help="steps of each kind of SRCD, at d = 190")
    return parser.parse_args()


def main():
    args = parse_arguments()
    if keras.backend.backend() != "tensorflow":
        sys.exit("Expected KERAS_BACKEND=tensorflow")
    print(machine())
    if args.drift:
        from orthogonal_drift import print_drift

        print_drift(args.drift)
        return
    peers = sides.installed_peers()
    names = args.sides or [*sides.OWN, *peers]
    missing = [name for name in sides.PEERS if name not in peers]
    if missing and not args.sides:
        print(f"\nNot installed (extra `peers`): {', '.join(missing)}.")
    print(
        "\nA Gaussian gradient of Frobenius norm 1, and a rate at which a "
        f"whole gradient step turns planes by angles up to {args.angle:g}."
    )
    results, before = {}, None
    for d in sorted(args.sizes):
        seconds = time_size(d, names, args, before)
        before = seconds, d
        results[d] = faster(seconds)
        print(f"(d = {d} is done)", file=sys.stderr, flush=True)
    print_table(results, names)
    print_goals(results)


if __name__ == "__main__":
    main()
