"""The timings of the benchmarks, which are in the folder beside."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2]))

from benchmarks.timing import median_seconds
from benchmarks.timing import processor
from benchmarks.timing import training_step

__all__ = ["median_seconds", "processor", "training_step"]
