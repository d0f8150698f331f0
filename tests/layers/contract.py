"""What every recurrent layer here promises: to be a stock layer, and more.

A new layer joins by an entry in `LAYERS`; `test_contract.py` does the rest.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import MODES
from tests.helpers import inner
from tests.helpers import second_derivative
from tests.helpers import value_and_grad
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralRNN

UNITS, FEATURES = 8, 3
# Keras rounds `matmul` and `tanh` of float64 to float32 on the others, in its
# own SimpleRNN too.
DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
EXACT = {"float64": 1e-12, "float32": 1e-5}[DTYPE]
CLOSE = {"float64": 1e-10, "float32": 1e-4}[DTYPE]


@contextlib.contextmanager
def everything_in(dtype):
    """Makes it the dtype of layers, inputs and constants."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


class Contender(NamedTuple):
    """A layer under the contract.

    `make(**options)` gives one of `UNITS` units, `reference(layer)` the stock
    layer that computes the same, with the same options. `states` is how many
    tensors its state has.
    """

    make: Callable
    reference: Callable
    states: int = 1

    def state(self, batch=4):
        """An `initial_state`, in the form that stock layers take."""
        tensors = [
            ops.convert_to_tensor(normal(batch, UNITS, seed=i))
            for i in range(self.states)
        ]
        return tensors if self.states > 1 else tensors[0]


def spectral_rnn(**fixed):
    def make(**options):
        return SpectralRNN(UNITS, **{**fixed, **options})

    return Contender(make, lambda layer: layer.to_stock())


def orthogonal_rnn(**fixed):
    def make(**options):
        return OrthogonalRNN(UNITS, **{**fixed, **options})

    return Contender(make, lambda layer: layer.to_stock())


def gated(layer_class, states, **fixed):
    def make(**options):
        return layer_class(UNITS, **{**fixed, **options})

    return Contender(make, lambda layer: layer.to_stock(), states)


LAYERS = {
    "dense": spectral_rnn(form="dense", activation="tanh"),
    "low_rank": spectral_rnn(
        form="low_rank", reflectors=1, activation="softsign"
    ),
    "thick_rank": spectral_rnn(
        form="low_rank", reflectors=(1, 3), activation="relu"
    ),
    "orthogonal": orthogonal_rnn(activation="tanh"),
    "fallback": spectral_rnn(reflectors=2, activation="gelu"),
    "lstm": gated(
        SpectralLSTM, 2, reflectors=2, sigma_center=0.8, sigma_radius=0.3
    ),
    "gru": gated(SpectralGRU, 1, sigma_center=0.8, sigma_radius=0.3),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(DTYPE)


def built(layer, features=FEATURES, batch=None):
    """The layer with weights that all differ from where they start."""
    layer.build((batch, None, features))
    return shaken(layer)


def shaken(layer, seed=0):
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        step = 0.3 * rng.normal(size=variable.shape)
        value = ops.convert_to_numpy(variable) + step
        variable.assign(value.astype(variable.dtype))
    return layer


def same_weights(layer, other):
    """`other`, built and with the weights of `layer`."""
    if not other.built:
        other.build((None, None, FEATURES))
    other.set_weights(layer.get_weights())
    return other


def arrays_of(outputs):
    """Outputs of a layer as a list of NumPy arrays."""
    return [ops.convert_to_numpy(t) for t in keras.tree.flatten(outputs)]


def gradients(layer, x, mode=MODES[0], order=1, **options):
    """By all trainable weights and x, of a weighted sum of all outputs.

    With `order=2`, of that sum's derivative along a fixed direction.

    Returns:
        Dict from the paths of weights, and `"x"`, to arrays.
    """
    weights = [ops.convert_to_numpy(v) for v in layer.trainable_variables]
    state = [ops.convert_to_numpy(v) for v in layer.non_trainable_variables]

    def loss(*tensors):
        outputs, _ = layer.stateless_call(
            tensors[:-1],
            [ops.convert_to_tensor(v) for v in state],
            tensors[-1],
            **options,
        )
        return sum(
            inner(output, normal(*output.shape, seed=i))
            for i, output in enumerate(keras.tree.flatten(outputs))
        )

    if order == 1:
        _, values = value_and_grad(loss, *weights, x, mode=mode)
    else:
        along = [normal(*w.shape, seed=i) for i, w in enumerate([*weights, x])]
        values = second_derivative(loss, along, *weights, x, mode=mode)
    names = [v.path for v in layer.trainable_variables] + ["x"]
    assert len(set(names)) == len(names)
    return dict(zip(names, values, strict=True))
