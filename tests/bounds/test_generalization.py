"""The generalization bound against the printed formula in decimals."""

import math

import numpy as np
import pytest
from keras import ops

from tests import oracles_generalization as oracles
from tests.bounds.recurrent_cases import MODES_IN_TIME
from tests.helpers import assert_close
from tests.helpers import dtype_of
from tests.helpers import evaluate
from tf_spectral.bounds import generalization_bound
from tf_spectral.bounds import log_gradient_bound

SIZES = [(3, 5, 4), (7, 4, 2), (2, 6, 9), (1, 1, 1), (1, 2, 1), (2, 2, 1)]
OPTIONS = {"input_bound": 1.5, "steps": 6, "margin": 0.3, "examples": 500}


def kernels(inputs, units, classes, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    shapes = (inputs, units), (units, units), (units, classes)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def expected(m, w, y, delta=0.05, radius=None, **options):
    bound, steps = options["input_bound"], options["steps"]
    margin, examples = options["margin"], options["examples"]
    if radius is None:
        b = oracles.theorem(m, w, y, bound, steps, margin)
    else:
        b = oracles.corollary(m, y, bound, steps, margin, radius)
    gap = oracles.gap(b, steps, examples, delta)
    return float(b.ln()), float(gap.ln())


def check(actual, log_complexity, log_gap, tolerance=1e-10):
    assert_close(actual["log_complexity"], log_complexity, tolerance, scale=1)
    assert_close(actual["log_gap"], log_gap, tolerance, scale=1)


@pytest.mark.parametrize("mode", MODES_IN_TIME)
def test_theorem_in_every_mode(mode):
    m, w, y = kernels(3, 5, 4)
    f = lambda *k: generalization_bound(*k, **OPTIONS)  # noqa: E731
    actual = evaluate(f, m, w, y, mode=mode)
    check(actual, *expected(m, w, y, **OPTIONS))


@pytest.mark.parametrize("sizes", SIZES)
def test_theorem_as_printed(sizes):
    m, w, y = kernels(*sizes)
    actual = evaluate(lambda *k: generalization_bound(*k, **OPTIONS), m, w, y)
    check(actual, *expected(m, w, y, **OPTIONS))
    assert_close(actual["gap"], np.exp(actual["log_gap"]), 1e-12)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("radius", [0.0, 0.01, 2.0])
def test_corollary_as_printed(sizes, radius):
    m, w, y = kernels(*sizes)
    actual = evaluate(
        lambda *k: generalization_bound(*k, **OPTIONS, sigma_radius=radius),
        *(m, w, y),
    )
    check(actual, *expected(m, w, y, radius=radius, **OPTIONS))


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_small_recurrent_kernels_count_as_one(scale):
    m, w, y = kernels(3, 4, 2)
    w = scale * np.linalg.qr(w)[0]
    actual = evaluate(lambda *k: generalization_bound(*k, **OPTIONS), m, w, y)
    check(actual, *expected(m, w, y, **OPTIONS))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_sequences_do_not_overflow(dtype):
    m, w, y = kernels(3, 5, 4, dtype)
    options = {**OPTIONS, "steps": 5000, "examples": 60000}
    actual = evaluate(lambda *k: generalization_bound(*k, **options), m, w, y)
    wanted = expected(m, w, y, **options)
    # Far beyond e^709, the largest number of float64.
    assert wanted[0] > 5000
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    assert_close(actual["log_complexity"], wanted[0], tolerance)
    assert_close(actual["log_gap"], wanted[1], tolerance)
    assert np.isposinf(actual["gap"])


def test_a_gap_ruled_by_chance():
    """Few steps, a wide margin: the second term counts."""
    m, w, y = kernels(2, 3, 2)
    options = {"input_bound": 1e-3, "steps": 1, "margin": 1.0, "examples": 50}
    actual = evaluate(
        lambda *k: generalization_bound(*k, **options, confidence=0.999),
        *(m, w, y),
    )
    check(actual, *expected(m, w, y, delta=0.001, **options), 1e-9)
    assert actual["gap"] < 1


def test_tiny_confidence():
    m, w, y = kernels(2, 3, 2)
    options = {**OPTIONS, "steps": 1, "examples": 1, "confidence": 1e-20}
    actual = evaluate(lambda *k: generalization_bound(*k, **options), m, w, y)
    assert np.isfinite(actual["gap"])


def test_zero_kernels():
    """Constant logits have no complexity; what is left is chance."""
    m, w, y = kernels(2, 3, 2)
    f = lambda *k: generalization_bound(*k, **OPTIONS)  # noqa: E731
    chance = math.sqrt(math.log(6 * 500 / 0.05) / 500)
    for zeros in ((0 * m, 0 * w, 0 * y), (m, w, 0 * y), (0 * m, w, y)):
        actual = evaluate(f, *zeros)
        assert np.isneginf(actual["log_complexity"])
        assert_close(actual["gap"], chance, 1e-12)
    actual = evaluate(f, m, 0 * w, y)
    check(actual, *expected(m, 0 * w, y, **OPTIONS))


def test_dtypes():
    m, w, y = kernels(2, 3, 2)
    f = lambda *k: generalization_bound(*k, **OPTIONS)["gap"]  # noqa: E731
    half = [ops.cast(k, "bfloat16") for k in (m, w, y)]
    assert dtype_of(f(*half)) == "float32"
    mixed = (
        ops.cast(m, "float32"),
        ops.cast(w, "float64"),
        ops.cast(y, "float32"),
    )
    assert dtype_of(f(*mixed)) == "float64"


@pytest.mark.parametrize(
    "change,name",
    [
        ({"input_kernel": np.ones((2, 4))}, "input_kernel"),
        ({"recurrent_kernel": np.ones((2, 3))}, "recurrent_kernel"),
        ({"output_kernel": np.ones((4, 2))}, "output_kernel"),
        ({"output_kernel": np.ones((3, 0))}, "output_kernel"),
        ({"output_kernel": np.ones(3)}, "output_kernel"),
        ({"output_kernel": np.ones((3, 2), "int32")}, "output_kernel"),
        ({"input_bound": 0.0}, "input_bound"),
        ({"input_bound": math.inf}, "input_bound"),
        ({"margin": -1.0}, "margin"),
        ({"margin": math.nan}, "margin"),
        ({"steps": 0}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"examples": -1}, "examples"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 0}, "confidence"),
        ({"sigma_radius": -0.1}, "sigma_radius"),
        ({"sigma_radius": math.inf}, "sigma_radius"),
    ],
)
def test_refuses(change, name):
    names = ("input_kernel", "recurrent_kernel", "output_kernel")
    arguments = {**dict(zip(names, kernels(2, 3, 2))), **OPTIONS, **change}
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        generalization_bound(**arguments)


def test_gradient_bound_holds_and_is_reached():
    """Of a linear network with equal sigma nothing is lost."""
    w = 1.1 * np.linalg.qr(kernels(1, 5, 1)[1])[0]
    f = lambda w: log_gradient_bound(w, 400, slope=0.5)  # noqa: E731
    jacobian = 400 * math.log(0.5 * 1.1)
    assert_close(evaluate(f, w), jacobian, 1e-12)
    w = kernels(1, 5, 1)[1]
    size = np.linalg.norm(np.linalg.matrix_power(w, 7), 2)
    bound = evaluate(lambda w: log_gradient_bound(w, 7), w)
    assert bound >= math.log(size)
    top = np.linalg.norm(w, 2)
    assert_close(bound, 7 * math.log(top), 1e-12)


@pytest.mark.parametrize(
    "arguments,name",
    [
        ((np.ones((2, 3)), 4), "recurrent_kernel"),
        ((np.ones((2, 2)), 0), "steps"),
        ((np.ones((2, 2)), 4, 0.0), "slope"),
    ],
)
def test_gradient_bound_refuses(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        log_gradient_bound(*arguments)
