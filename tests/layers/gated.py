"""What the tests of SpectralLSTM and SpectralGRU share."""

import numpy as np
from keras import ops

from tests.layers.contract import FEATURES
from tests.layers.contract import normal
from tests.layers.contract import shaken
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM

UNITS = 4
DROPOUT = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 7}
CENTER, RADIUS = 0.8, 0.3
BOTH = (SpectralLSTM, SpectralGRU)
MASK = np.array(
    [[False, True, True, False, True], [True, True, True, True, False]]
)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def make(layer_class, **options):
    """A built layer of wide bounds whose weights are all off their start."""
    options = {"sigma_center": CENTER, "sigma_radius": RADIUS, **options}
    layer = layer_class(UNITS, **options)
    layer.build((None, None, FEATURES))
    return shaken(layer)


def states_of(layer, batch=2):
    state = ops.convert_to_tensor(normal(batch, UNITS, seed=2))
    return [state] * len(layer.state_size)


def of_gates(matrix):
    """The square blocks of a recurrent kernel."""
    return np.split(array(matrix), matrix.shape[1] // matrix.shape[0], axis=1)
