"""Experiments, one in each file.

    python keras_examples/adding.py
    python -m keras_examples.adding

What they share is in the folder `support`, which both ways of starting find.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
