"""The examples import each other as scripts do, from their own folder."""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).parents[2] / "keras_examples"
sys.path.insert(0, str(FOLDER))
