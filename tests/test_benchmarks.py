"""Timings of benchmarks and examples, and what `make bench` runs."""

import pathlib
import re

import pytest

from benchmarks import timing

ROOT = pathlib.Path(__file__).parents[1]


class Clock:
    """Time passes by what functions say they take."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def function(self, name, seconds):
        seconds = iter(seconds)

        def run():
            self.calls.append(name)
            self.now += next(seconds)

        return run


def test_medians_are_those_of_a_call_and_leave_the_first_ones_out(monkeypatch):
    clock = Clock(monkeypatch)
    # Two calls to warm up, then five turns of two calls.
    slow = [90.0, 90.0, *[1.0, 3.0] * 2, *[5.0, 5.0] * 2, 50.0, 50.0]
    functions = {
        "slow": clock.function("slow", slow),
        "fast": clock.function("fast", [7.0, 7.0, *[0.5] * 10]),
    }
    medians = timing.median_seconds(functions, repeats=5, calls=2)
    assert medians == {"slow": 5.0, "fast": 0.5}
    # In turn, so that a slow minute of the machine slows all of them.
    assert clock.calls[4:] == (["slow"] * 2 + ["fast"] * 2) * 5


def test_few_repeats_make_no_median():
    with pytest.raises(ValueError, match="`repeats` must be at least 5"):
        timing.median_seconds({}, repeats=4)


def test_the_machine_is_named():
    assert re.search(r"\d+ cores", timing.processor())
    assert timing.processor() in timing.machine()


def test_make_bench_runs_every_benchmark():
    makefile = (ROOT / "Makefile").read_text()
    line = re.search(r"^BENCHMARKS = (.*)$", makefile, re.MULTILINE)
    programs = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "__main__" in path.read_text()
    }
    assert set(line[1].split()) == programs
