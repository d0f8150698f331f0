"""Recurrent networks that the tests of their bounds share."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests.oracles_recurrent import Rnn
from tf_spectral.bounds import rnn_lipschitz_constants

# The mode in which many networks of one shape are fast.
FAST = "graph" if "graph" in helpers.MODES else helpers.MODES[0]
# Of what XLA takes long to compile.
MODES_IN_TIME = [
    pytest.param(mode, marks=pytest.mark.slow) if mode == "xla" else mode
    for mode in helpers.MODES
]
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


def loss(nets):
    return np.mean([net.loss() for net in nets])


def gradients(nets, names):
    return {
        n: np.mean([net.derivatives(n)[0] for net in nets], 0) for n in names
    }


def move(weights, name, step):
    return weights | {name: weights[name] + step}


def arguments(weights):
    return {name: weights[key] for name, key in ARGUMENTS.items()}


def constants(weights, x, y=None, /, **options):
    """Of NumPy arrays, eagerly: dict of floats."""
    given = arguments(weights) | options
    if options.get("residual"):
        given["y"] = y
    result = rnn_lipschitz_constants(x=x, **given)
    return {k: float(ops.convert_to_numpy(v)) for k, v in result.items()}


def compiled(*options, mode=FAST):
    """The constants for several dictionaries of options, in one function.

    Returns:
        Function `(weights, x, y, radius)` that returns a list of dicts of
        floats; `radius` is read where an option asks for one.
    """
    names = list(ARGUMENTS)

    def compute(x, y, radius, *values):
        results = []
        for chosen in options:
            given = dict(zip(names, values, strict=True)) | chosen
            if chosen.get("residual"):
                given["y"] = y
            if chosen.get("radius") is not None:
                given["radius"] = radius
            results.append(rnn_lipschitz_constants(x=x, **given))
        return results

    run = helpers._compile(compute, mode)

    def function(weights, x, y, radius=0.0):
        values = [weights[key] for key in ARGUMENTS.values()]
        arrays = (x, y, np.asarray(radius, "float64"), *values)
        results = run(*[ops.convert_to_tensor(a) for a in arrays])
        return [
            {k: float(ops.convert_to_numpy(v)) for k, v in result.items()}
            for result in results
        ]

    return function
