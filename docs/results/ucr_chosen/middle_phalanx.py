"""Why MiddlePhalanxOutlineCorrect depends on 15 of its 291 training series.

TF_SPECTRAL_DATA=... python docs/results/ucr_chosen/middle_phalanx.py
"""

import os
import pathlib

import numpy as np

NAME = "MiddlePhalanxOutlineCorrect"
folder = pathlib.Path(os.environ["TF_SPECTRAL_DATA"]) / "ucr" / NAME
# The parts are swapped, as in the example.
train = np.loadtxt(folder / f"{NAME}_TEST.tsv")
test = np.loadtxt(folder / f"{NAME}_TRAIN.tsv")


def nearest_neighbour(count):
    """Accuracies on the halves of the test part, by the first series."""
    distances = np.square(test[:, None, 1:] - train[None, :count, 1:])
    right = train[distances.sum(-1).argmin(1), 0] == test[:, 0]
    return right[:300].mean(), right[300:].mean()


for count in (291, 276):
    first, second = nearest_neighbour(count)
    print(
        f"nearest neighbour of the first {count} training series: "
        f"{first:.3f} of the first 300 test series, {second:.3f} of the others"
    )
