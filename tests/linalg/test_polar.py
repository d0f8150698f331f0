"""Polar factors and nuclear norms, and their certificate."""

import numpy as np
import pytest
from keras import ops

from tests import oracles_norms as oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tf_spectral.linalg.polar import nuclear_norm
from tf_spectral.linalg.polar import polar_and_nuclear
from tf_spectral.linalg.polar import polar_factor

DTYPES = ("float64", "float32")
# Part of the nuclear norm that each accuracy promises.
PROMISED = {"high": 0.99, "standard": 0.99, "fast": 0.85}
SHAPES = ((5, 5), (4, 9), (9, 4), (64, 8), (1, 6), (6, 1), (1, 1))


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def of_spectrum(s, p, n, seed=0):
    left = np.linalg.qr(normal(p, len(s), seed=seed))[0]
    right = np.linalg.qr(normal(n, len(s), seed=seed + 1))[0]
    return (left * np.asarray(s)) @ right.T


def logistic_gradient(batch, seed=0, widths=(784, 300, 10)):
    """First kernel's gradient of a sigmoid network on random sparse data."""
    rng = np.random.default_rng(seed)
    n_in, n, classes = widths
    x = rng.uniform(size=(batch, n_in)) * (
        rng.uniform(size=(batch, n_in)) < 0.2
    )
    k_1 = rng.normal(size=(n_in, n)) * np.sqrt(2 / (n_in + n))
    k_2 = rng.normal(size=(n, classes)) * np.sqrt(2 / (n + classes))
    h = 1 / (1 + np.exp(-x @ k_1))
    p = np.exp(h @ k_2)
    p /= np.sum(p, axis=1, keepdims=True)
    p[np.arange(batch), rng.integers(0, classes, batch)] -= 1
    return x.T @ ((p @ k_2.T) * h * (1 - h) / batch)


def gradients():
    """What is met in practice, and what is hard."""
    yield "gaussian", normal(90, 40)
    yield "square", normal(60, 60)
    yield "wide", normal(30, 80)
    for condition in (10, 1e3, 1e5):
        for n in (10, 60):
            s = np.geomspace(1, 1 / condition, n)
            yield f"log{condition:.0e}-{n}", of_spectrum(s, 150, 60)
            yield f"log{condition:.0e}-{n}-square", of_spectrum(s, 60, 60)
    yield "rank one", np.outer(normal(80), normal(50, seed=1))
    yield "low rank", normal(120, 16) @ normal(16, 50, seed=1)
    yield "logistic", logistic_gradient(32, widths=(200, 100, 10))
    yield "isometry", of_spectrum(np.ones(40), 90, 40)
    yield "two levels", of_spectrum([1.0] * 5 + [3e-3] * 35, 90, 40)


GRADIENTS = dict(gradients())


def assert_certified(x, q, nu, kappa=0.0):
    """`||q||_2 <= 1`, `nu = <x, q>` and no more than the nuclear norm."""
    x, q = np.asarray(x, "float64"), np.asarray(q, "float64")
    assert q.shape == x.shape
    assert np.isfinite(q).all()
    norm = oracles.nuclear_norm(x)
    assert np.linalg.norm(q, 2) <= 1 + 1e-6
    assert nu <= norm * (1 + 1e-12)
    assert_close(nu, np.sum(x * q), 1e-4, norm or 1.0)
    assert nu >= kappa * norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accuracy", PROMISED)
@pytest.mark.parametrize("name", GRADIENTS)
def test_certificate(name, accuracy, dtype):
    x = GRADIENTS[name].astype(dtype)
    q, nu = evaluate(lambda x: polar_and_nuclear(x, accuracy=accuracy), x)
    assert q.dtype == nu.dtype == dtype
    assert_certified(x, q, nu, PROMISED[accuracy])


@pytest.mark.parametrize("accuracy", PROMISED)
@pytest.mark.parametrize("shape", ((20, 60), (20, 20)), ids=str)
def test_certificate_in_every_mode(shape, accuracy, mode):
    x = normal(*shape, dtype="float32")

    def f(x):
        return polar_and_nuclear(x, accuracy=accuracy)

    assert_certified(x, *evaluate(f, x, mode=mode), PROMISED[accuracy])


@pytest.mark.parametrize(
    "batch,accuracy", ((128, "fast"), (128, "standard"), (512, "standard"))
)
def test_certificate_of_a_large_gradient(batch, accuracy):
    x = logistic_gradient(batch).astype("float32")
    q, nu = evaluate(lambda x: polar_and_nuclear(x, accuracy=accuracy), x)
    assert_certified(x, q, nu, PROMISED[accuracy])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accuracy", PROMISED)
@pytest.mark.parametrize("seed", range(4))
def test_certificate_of_adversarial_spectra(seed, accuracy, dtype):
    """Many singular values where the schedule is steep, or at its peaks."""
    rng = np.random.default_rng(seed)
    s = np.concatenate(
        [
            np.ones(2),
            10 ** rng.uniform(-4, -1) * (1 + 0.3 * rng.uniform(size=50)),
        ]
    )
    for p in (52, 400):
        x = of_spectrum(s, p, 52, seed=seed).astype(dtype)
        q, nu = evaluate(lambda x: polar_and_nuclear(x, accuracy=accuracy), x)
        assert_certified(x, q, nu)


@pytest.mark.parametrize("accuracy", PROMISED)
@pytest.mark.parametrize("exact", (False, True))
@pytest.mark.parametrize("scale", (0.0, 1e-45, 1e-39, 1e-30, 1e30, 1e37))
@pytest.mark.parametrize("shape", ((6, 4), (4, 6), (30, 5)), ids=str)
def test_extreme_sizes(shape, scale, exact, accuracy):
    """Denormals may count as zero, as the hardware pleases."""
    x = normal(*shape)
    x = x / np.max(np.abs(x))
    with np.errstate(over="ignore", under="ignore"):
        scaled = (scale * x).astype("float32")
    q, nu = evaluate(
        lambda x: polar_and_nuclear(x, exact=exact, accuracy=accuracy), scaled
    )
    assert np.isfinite(q).all() and np.isfinite(nu)
    assert np.linalg.norm(q.astype("float64"), 2) <= 1 + 1e-6
    if scale == 0.0:
        assert not np.any(q) and nu == 0.0
    elif scale > 1e-37:
        expected = oracles.nuclear_norm(x)
        assert_close(nu / scale, expected, 1 - PROMISED[accuracy])


@pytest.mark.parametrize("bad", (np.nan, np.inf))
@pytest.mark.parametrize("accuracy", PROMISED)
@pytest.mark.parametrize("shape", ((6, 4), (1, 4), (40, 30)), ids=str)
def test_not_a_number_is_not_hidden(shape, accuracy, bad):
    x = normal(*shape, dtype="float32")
    x[0, 1] = bad
    assert not np.isfinite(float(nuclear_norm(x, accuracy=accuracy)))


def test_not_a_number_in_every_mode(mode):
    x = normal(9, 5, dtype="float32")
    x[0, 1] = np.nan
    f = lambda x: nuclear_norm(x, accuracy="fast")  # noqa: E731
    assert not np.isfinite(evaluate(f, x, mode=mode))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ((1, 6), (6, 1), (1, 1)), ids=str)
def test_single_line_is_normalized(shape, dtype):
    x = normal(*shape, dtype=dtype)
    norm = np.linalg.norm(x.astype("float64"))
    for accuracy in PROMISED:
        q, nu = polar_and_nuclear(x, accuracy=accuracy)
        assert_close(q, x / norm, 1e-6)
        assert_close(nu, norm, 5e-6)
        assert_certified(x, q, float(nu))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_high_accuracy_is_close_to_the_oracle(shape):
    """2e-6 for singular values from 1e-3 of the largest on (math 1.2)."""
    for x in (normal(*shape), 1e3 * np.eye(*shape)):
        singular_values = oracles.singular_values(x)
        assert singular_values[-1] > 2e-3 * singular_values[0]
        q = ops.convert_to_numpy(polar_factor(x))
        assert np.linalg.norm(q - oracles.polar_factor(x), 2) <= 2.2e-6
        assert_close(nuclear_norm(x), oracles.nuclear_norm(x), 4e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact(shape, dtype):
    tolerance = {"float64": 1e-12, "float32": 1e-5}[dtype]
    x = normal(*shape, dtype=dtype)
    q, nu = evaluate(lambda x: polar_and_nuclear(x, exact=True), x)
    assert_close(q, oracles.polar_factor(x), tolerance)
    assert_close(nu, oracles.nuclear_norm(x), tolerance)


def test_exact_drops_what_is_rounding():
    x = of_spectrum([2.0, 1.0], 6, 4)
    q = ops.convert_to_numpy(polar_factor(x, exact=True))
    assert_close(np.linalg.svd(q)[1], [1, 1, 0, 0], 1e-12)
    assert_close(q, oracles.polar_factor(x), 1e-12)


def test_transposition_and_scale():
    x = normal(30, 12)
    for accuracy in PROMISED:
        q = ops.convert_to_numpy(polar_factor(x, accuracy=accuracy))
        wide = ops.convert_to_numpy(polar_factor(-7.0 * x.T, accuracy=accuracy))
        assert_close(wide, -q.T, 1e-9)


def test_empty():
    q, nu = polar_and_nuclear(np.zeros((0, 3), "float32"))
    assert q.shape == (0, 3)
    assert float(nu) == 0.0


def test_a_sum_that_rounding_makes_larger_is_no_more_than_the_norm():
    """Of one column: without a margin two of three would be."""
    for seed in range(40):
        x = normal(300, 1, dtype="float32", seed=seed)
        _, nu = polar_and_nuclear(x, accuracy="standard")
        exact = np.linalg.norm(x.astype("float64"))
        assert (1 - 1e-5) * exact < float(nu) <= exact


@pytest.mark.parametrize("accuracy", [*PROMISED, "exact"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stack_is_its_matrices(accuracy, shape):
    x = normal(2, 3, *shape)
    x[0, 1] = 0.0
    x[1, 2] *= 1e12
    options = {"exact": True} if accuracy == "exact" else {"accuracy": accuracy}
    q, nu = (
        ops.convert_to_numpy(y)
        for y in polar_and_nuclear(ops.convert_to_tensor(x), **options)
    )
    assert q.shape == x.shape and nu.shape == (2, 3)
    for i in np.ndindex(2, 3):
        expected = polar_and_nuclear(ops.convert_to_tensor(x[i]), **options)
        one, size = (ops.convert_to_numpy(y) for y in expected)
        assert_close(q[i], one, 1e-9, 1.0)
        assert_close(nu[i], size, 1e-12, 1.0 if size == 0 else None)


def test_a_stack_of_nothing():
    q, nu = polar_and_nuclear(ops.zeros((4, 0, 3)))
    assert tuple(q.shape) == (4, 0, 3) and tuple(nu.shape) == (4,)
    with pytest.raises(ValueError, match="rank 2 at least"):
        polar_and_nuclear(ops.zeros((4,)))
