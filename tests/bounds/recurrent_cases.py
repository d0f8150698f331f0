"""Recurrent networks that the tests of their bounds share."""

import numpy as np
from keras import ops

from tests import helpers
from tests.oracles_recurrent import Rnn
from tf_spectral.bounds import rnn_lipschitz_constants

# The mode in which many networks of one shape are fast.
FAST = "graph" if "graph" in helpers.MODES else helpers.MODES[0]
# Arguments of the public functions and the names of the oracle.
ARGUMENTS = {
    "input_kernel": "input",
    "recurrent_kernel": "recurrent",
    "output_kernel": "output",
    "bias": "bias",
    "initial_state": "initial_state",
    "output_bias": "output_bias",
}


def random_network(shape, seed, scale=1.0):
    """Weights, `x` and `y` of a batch; shape: units, inputs, classes, ..."""
    units, inputs, classes, steps, batch = shape
    rng = np.random.default_rng(seed)
    weights = {
        "input": rng.normal(size=(inputs, units)) * scale,
        "recurrent": rng.normal(size=(units, units)) * scale / units**0.5,
        "output": rng.normal(size=(units, classes)) * scale,
        "bias": 0.3 * rng.normal(size=units),
        "initial_state": 0.5 * rng.normal(size=units),
        "output_bias": 0.3 * rng.normal(size=classes),
    }
    x = rng.normal(size=(batch, steps, inputs))
    y = rng.integers(0, classes, (batch, steps))
    return weights, x, y


def oracles(weights, x, y, f="tanh", outputs="all"):
    """One `Rnn` for each sequence; `y` are class ids."""
    classes = len(weights["output_bias"])
    return [
        Rnn(weights, x_b, np.eye(classes)[y_b], f, outputs)
        for x_b, y_b in zip(x, y, strict=True)
    ]


def mean(dicts):
    return {
        name: np.mean([d[name] for d in dicts], axis=0) for name in dicts[0]
    }


def arguments(weights):
    return {name: weights[key] for name, key in ARGUMENTS.items()}


def constants_function(mode=FAST, with_radius=False, **options):
    """Compiled once: function `(weights, x, y, radius) -> dict` of floats."""
    names = list(ARGUMENTS)

    def compute(x, y, radius, *values):
        given = dict(zip(names, values, strict=True)) | options
        if options.get("residual"):
            given["y"] = y
        if with_radius:
            given["radius"] = radius
        return rnn_lipschitz_constants(x=x, **given)

    compiled = helpers._compile(compute, mode)

    def function(weights, x, y, radius=0.0):
        values = [weights[key] for key in ARGUMENTS.values()]
        arrays = (x, y, np.float64(radius), *values)
        result = compiled(*[ops.convert_to_tensor(a) for a in arrays])
        return {k: float(ops.convert_to_numpy(v)) for k, v in result.items()}

    return function
