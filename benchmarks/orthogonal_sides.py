"""Steps on an orthogonal matrix: this library's, and those of its peers.

Every side is a function of a number of steps that returns once they are done.
All take the same matrix and gradient. Steps go forth and back, by `+gradient`
and `-gradient`, so that the parameters of the peers stay small: the cost of a
dense exponential grows with them.
"""

import importlib.util
import math
import os

import keras
import numpy as np

from tf_spectral.constraints import Orthogonal
from tf_spectral.linalg.orthogonal import reorthogonalize
from tf_spectral.linalg.retractions import expm
from tf_spectral.optimizers import SRCD
from tf_spectral.optimizers import SRGD

# Name, and what the table calls it.
OWN = {
    "random": "SRCD random, one pair",
    "random-block": "SRCD random, d/2 pairs",
    "cyclic-block": "SRCD cyclic, d/2 pairs",
    "greedy": "SRCD greedy, one pair",
    "greedy-block": "SRCD greedy, d/2 pairs",
    "expm": "SRGD expm",
    "cayley": "SRGD cayley",
    "qr": "SRGD qr",
    "polar": "SRGD polar",
    "spectral": "SRGD spectral metric, expm",
    "correction": "correction of rounding, once in 1000 full blocks",
    "product": "one product R Gᵀ",
    "exponential": "expm of a skew matrix",
}
PEERS = {
    "torch-product": "one product R Gᵀ, PyTorch",
    "torch-exponential": "torch.matrix_exp of a skew matrix",
    "torch-matrix_exp": "torch orthogonal(matrix_exp), SGD",
    "torch-cayley": "torch orthogonal(cayley), SGD",
    "torch-householder": "torch orthogonal(householder), SGD",
    "geotorch": "GeoTorch orthogonal, SGD",
}
LABELS = {**OWN, **PEERS}


class Problem:
    """A random orthogonal matrix, a gradient, and a rate of steps.

    The gradient is Gaussian, with a Frobenius norm of about 1.

    Args:
        d: Integer, the size.
        angle: Float, about the largest angle that a whole gradient step,
            `rate / 2 (R G^T - G R^T)`, turns a plane by.
    """

    def __init__(self, d, angle):
        rng = np.random.default_rng(0)
        self.d = d
        noise = rng.standard_normal((d, d), dtype="float32")
        self.start = np.linalg.qr(noise)[0]
        self.gradient = rng.standard_normal((d, d), dtype="float32") / d
        # A skew Gaussian matrix of entries s has a norm near 2 s sqrt(d).
        self.rate = angle * math.sqrt(d / 2)

    def skew(self):
        product = self.start @ self.gradient.T
        return self.rate / 2 * (product - product.T)


def installed_peers():
    names = [
        name
        for name in PEERS
        if importlib.util.find_spec(
            "geotorch" if name == "geotorch" else "torch"
        )
    ]
    return names if importlib.util.find_spec("torch") else []


def use_all_cores():
    """PyTorch takes as many threads as TensorFlow; returns torch."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return torch


def make_optimizer(name, d, rate):
    selection, _, block = name.partition("-")
    if selection in ("random", "cyclic", "greedy"):
        size = d // 2 if block else 1
        return SRCD(rate, selection, block_size=size, seed=0)
    if name == "spectral":
        return SRGD(rate, metric="spectral")
    return SRGD(rate, retraction=name)


def own_steps(name, problem, jit):
    """Steps of a side of this library on TensorFlow."""
    import tensorflow as tf

    functions = {
        "product": lambda r, g: tf.matmul(r, g, transpose_b=True),
        "exponential": lambda a, unused: expm(a, skew=True),
        "correction": lambda r, unused: reorthogonalize(r),
    }
    g = tf.constant(problem.gradient)
    if name in functions:
        r = problem.skew() if name == "exponential" else problem.start
        r = tf.constant(r)
        function = tf.function(functions[name], jit_compile=jit)

        def run(steps):
            for _ in range(steps):
                result = function(r, g)
            result[0, 0].numpy()

        return run
    variable = keras.Variable(problem.start)
    variable.constraint = Orthogonal()
    optimizer = make_optimizer(name, problem.d, problem.rate)
    optimizer.build([variable])
    # The first step would project the start, the 1000th remove rounding.
    optimizer.iterations.assign(1)

    @tf.function(jit_compile=jit)
    def step(gradient):
        optimizer.apply([gradient], [variable])

    both = g, -g

    def run(steps):
        optimizer.iterations.assign(1)
        for i in range(steps):
            step(both[i % 2])
        tf.gather(variable.value, [0]).numpy()

    return run


def peer_steps(name, problem):
    """Steps of a side of PyTorch: matrix, its gradient's way back, SGD."""
    torch = use_all_cores()
    g = torch.from_numpy(problem.gradient)
    start = torch.from_numpy(problem.start)
    if name in ("torch-product", "torch-exponential"):
        a = torch.from_numpy(problem.skew())

        def run(steps):
            for _ in range(steps):
                torch.mm(start, g.T) if "product" in name else a.matrix_exp()

        return run
    layer = torch.nn.Linear(problem.d, problem.d, bias=False)
    if name == "geotorch":
        import geotorch

        geotorch.orthogonal(layer, "weight")
        layer.weight = start
    else:
        layer.weight.data = start
        torch.nn.utils.parametrizations.orthogonal(
            layer, orthogonal_map=name.removeprefix("torch-")
        )
    sgd = torch.optim.SGD(layer.parameters(), problem.rate)
    both = g, -g

    def run(steps):
        for i in range(steps):
            sgd.zero_grad()
            layer.weight.backward(both[i % 2])
            sgd.step()

    return run
