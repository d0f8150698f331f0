"""Orthogonal variables for the tests of SRGD and SRCD, and their steps."""

import keras
import numpy as np
from keras import ops

from tests import oracles_orthogonal
from tests.helpers import BACKEND
from tests.optimizers.stepping import stepper
from tf_spectral.constraints import Orthogonal

DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}[DTYPE]
RATE = 0.125  # exact in float32


def haar(d, seed=0):
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def variable(value, dtype=DTYPE, blocks=1):
    v = keras.Variable(np.asarray(value), dtype=dtype, name="r")
    v.constraint = Orthogonal(blocks)
    return v


def gradient(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def steps(optimizer, r, gradients):
    """The values of a variable `r` after each step."""
    v = variable(r)
    step = stepper(optimizer, [v])
    values = []
    for g in gradients:
        step([g])
        values.append(ops.convert_to_numpy(v).copy())
    return values


def one_step(optimizer, r, g):
    """The value of a variable `r` after a step that nothing is traced for."""
    v = variable(r)
    optimizer.apply([ops.convert_to_tensor(g.astype(DTYPE))], [v])
    return ops.convert_to_numpy(v)


def paper_skew(r, g):
    """S of math 3.1, for W = r^T and the gradient g^T."""
    return oracles_orthogonal.skew_gradient(r.T, g.T)


def error_of(w):
    w = ops.convert_to_numpy(w).astype("float64")
    w = w if w.shape[0] >= w.shape[1] else w.T
    return np.linalg.norm(w.T @ w - np.eye(w.shape[1]), 2)
