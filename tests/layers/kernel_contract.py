"""What every feed-forward layer here promises: a stock layer, its sigma kept.

A new layer joins by an entry in `LAYERS`; `test_kernel_contract.py` does the
rest.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tests import oracles
from tests.layers import contract
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D
from tf_spectral.layers import SpectralDense

CENTER, RADIUS = 1.1, 0.4


class Contender(NamedTuple):
    """A layer under the contract.

    `make(**options)` gives one of wide bounds for inputs of shape `(batch,
    *shape)`.
    """

    make: Callable
    shape: tuple

    def inputs(self, batch=4, seed=0):
        return contract.normal(batch, *self.shape, seed=seed)

    def built(self, **options):
        """A layer whose weights all differ from where they start."""
        layer = self.make(**options)
        layer.build((None, *self.shape))
        return contract.shaken(layer)


def contender(make, shape, *arguments, **fixed):
    fixed = {"sigma_center": CENTER, "sigma_radius": RADIUS, **fixed}
    return Contender(lambda **o: make(*arguments, **{**fixed, **o}), shape)


LAYERS = {
    "square": contender(SpectralDense, (4,), 4, activation="tanh"),
    "wide": contender(SpectralDense, (3,), 5, activation="relu"),
    "tall": contender(SpectralDense, (5,), 2, form="dense"),
    "low_rank": contender(
        SpectralDense, (6,), 5, form="low_rank", reflectors=(1, 2)
    ),
    "sequence": contender(SpectralDense, (2, 3), 3, activation="softsign"),
    "scalar": contender(SpectralDense, (1,), 1),
    "conv1d": contender(
        SpectralConv1D, (6, 3), 4, 2, padding="causal", dilation_rate=2
    ),
    "conv2d": contender(
        SpectralConv2D, (5, 4, 2), 3, (2, 3), strides=(2, 1), activation="tanh"
    ),
    "grouped": contender(
        SpectralConv2D, (4, 4, 4), 4, 2, padding="same", groups=2, reflectors=3
    ),
}


def numpy_of(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def raw_weights(layer):
    """Of U, of sigma and of V, as float64 arrays."""
    svd = layer.svd
    raw = numpy_of(svd._u), numpy_of(svd._sigma), numpy_of(svd._v)
    return [a.astype("float64") for a in raw]


def kernel_of(u, s, v, center=CENTER, radius=RADIUS):
    """The kernel as a matrix, by loops over reflectors (math.md 2.3, 2.8)."""
    sigma = center + radius * np.tanh(s / 2)
    return oracles.spectral_kernel(oracles.pack(u), sigma, oracles.pack(v))


def reference(layer):
    """The stock layer with the kernel that the raw weights give by loops."""
    stock = layer.to_stock()
    kernel = kernel_of(*raw_weights(layer)).reshape(stock.kernel.shape)
    bias = [numpy_of(layer.bias)] if layer.use_bias else []
    stock.set_weights([kernel, *bias])
    return stock


def gradient_named(gradients, end):
    (gradient,) = (g for path, g in gradients.items() if path.endswith(end))
    return gradient


def model_of(contender, layer, units=None):
    """The layer in a model, after a flattening with a last stock layer."""
    parts = [keras.Input(contender.shape), layer]
    if units is not None:
        parts += [keras.layers.Flatten(), keras.layers.Dense(units)]
    return keras.Sequential(parts)
