"""Weights and gradients in half precision: steps are computed in float32."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles_norms
from tf_spectral.optimizers import DSGD
from tf_spectral.optimizers import SpectralDescent

SHAPES = [(12, 20), (20,), (9, 4), (), (0, 3)]
# Rounding to nearest moves a value by at most this share of it.
UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}

OPTIMIZERS = {
    "dsgd_1": (lambda: DSGD(1.0, 1, "all", "constant"), 1),
    "dsgd_inf": (lambda: DSGD(1.0, "inf", "all", "constant"), "inf"),
    "dsgd_2": (
        lambda: DSGD(1.0, 2, "all", "constant", polar_accuracy="exact"),
        2,
    ),
    "spectral": (
        lambda: SpectralDescent(1.0, 1.0, polar_accuracy="exact"),
        2,
    ),
}


def as_float64(x):
    return ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")


def drawn(dtype, scale, seed):
    rng = np.random.default_rng(seed)
    return [
        ops.cast(np.float32(scale * rng.normal(size=shape)), dtype)
        for shape in SHAPES
    ]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_step_is_that_of_float64_rounded_once(name):
    """Also where the length of the step is no number of the precision."""
    make, norm = OPTIMIZERS[name]
    # A nuclear norm beyond 65504, the largest number of float16.
    for dtype, scale in [("float16", 700.0), ("bfloat16", 1.0)]:
        variables = [
            keras.Variable(value, dtype=dtype, name=f"w{i}")
            for i, value in enumerate(drawn(dtype, 1.0, 0))
        ]
        gradients = drawn(dtype, scale, 1)
        before = [as_float64(v) for v in variables]
        make().apply(gradients, variables)
        for old, gradient, variable in zip(before, gradients, variables):
            gradient = as_float64(gradient)
            if not gradient.size:
                continue
            expected = old - oracles_norms.duality_map(gradient, norm)
            error = np.abs(as_float64(variable) - expected)
            allowed = UNITS[dtype] * np.abs(expected)
            assert np.all(error <= 1.01 * allowed + 1e-5 * scale)


@pytest.mark.parametrize("accuracy", ["standard", "fast", "exact"])
def test_no_step_is_longer_than_it_says(accuracy):
    """In bfloat16 a polar factor is by 4e-3 longer than one."""
    variable = keras.Variable(np.zeros((40, 30), "float32"), name="w")
    optimizer = DSGD(1.0, 2, "all", "constant", polar_accuracy=accuracy)
    gradient = np.random.default_rng(0).normal(size=(40, 30))
    gradient = ops.cast(np.float32(gradient), "bfloat16")
    optimizer.apply([gradient], [variable])
    step = np.linalg.norm(as_float64(variable), 2)
    length = float(ops.convert_to_numpy(optimizer.local_gradient_norm))
    assert 0.9 * length < step <= (1 + 1e-5) * length
    # What the theory counts on: the gain along the step.
    gain = -np.sum(as_float64(variable) * as_float64(gradient))
    assert gain >= (1 - 1e-5) * length**2
