"""Times callables side by side, so that a slow minute slows them all."""

import statistics
import time


def interleaved_medians(callables, repeats=7, warmup=2):
    """Median seconds of each callable, all timed in turn `repeats` times.

    Args:
        callables: Dict of functions without arguments; each must not return
            before its work is done.
        repeats: Integer, at least 5. Defaults to 7.
        warmup: Integer, untimed calls of each. Defaults to 2.

    Returns:
        Dict of medians in seconds.
    """
    if repeats < 5:
        raise ValueError(
            f"Argument `repeats` must be at least 5. Received: {repeats}"
        )
    for function in callables.values():
        for _ in range(warmup):
            function()
    seconds = {name: [] for name in callables}
    for _ in range(repeats):
        for name, function in callables.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}
