"""Norms of kernels and gradients, and duality maps."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles_norms as oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tf_spectral.linalg.norms import as_matrix
from tf_spectral.linalg.norms import dual_norm
from tf_spectral.linalg.norms import duality_map
from tf_spectral.linalg.norms import frobenius_norm
from tf_spectral.linalg.norms import induced_norm
from tf_spectral.linalg.norms import spectral_norm_upper_bound

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
NORMS = (1, 2, "inf")
# Square, wide, tall, single row, column and entry; bias, scalar, 1-D and 2-D
# convolution kernels.
SHAPES = ((5, 5), (4, 9), (9, 4), (1, 6), (6, 1), (1, 1))
SHAPES += ((6,), (1,), (), (3, 4, 5), (2, 3, 4, 5))
EXTREMES = (1e-30, 1e30)


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def inner(a, b):
    return np.sum(np.asarray(a, "float64") * np.asarray(b, "float64"))


# math 8

GRADIENT = np.array([[3.0, -4.0, 0.0], [1.0, 1.0, -2.0]])
REFERENCE = {
    1: (6.0, [[0, -6, 0], [0, 0, -6]]),
    2: (
        7.4439983363,
        [
            [4.556540649, -5.8842334172, -0.1638463841],
            [3.2938493775, 2.7203870331, -6.0961596026],
        ],
    ),
    "inf": (9.0, [[9, -9, 0], [0, 0, -9]]),
}


@pytest.mark.parametrize("q", NORMS)
def test_reference_values(q):
    norm, step = REFERENCE[q]
    assert_close(oracles.dual_norm(GRADIENT, q), norm, 1e-10)
    assert_close(oracles.duality_map(GRADIENT, q), step, 1e-9)
    exact = {"exact": True} if q == 2 else {}
    assert_close(dual_norm(GRADIENT, q, **exact), norm, 1e-10)
    assert_close(duality_map(GRADIENT, q, **exact), step, 1e-9)
    # Without a decomposition to 2e-6.
    assert_close(dual_norm(GRADIENT, q), norm, 5e-6)
    assert_close(duality_map(GRADIENT, q), step, 1e-5)


# Against the oracle


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("q", NORMS)
def test_equal_to_the_oracle(q, shape, dtype):
    x = normal(*shape, dtype=dtype)
    tolerance = TOLERANCE[dtype]
    for f, oracle in (
        (induced_norm, oracles.induced_norm),
        (dual_norm, oracles.dual_norm),
        (duality_map, oracles.duality_map),
    ):
        actual = f(x, q, exact=True)
        assert helpers.dtype_of(actual) == dtype
        assert_close(ops.convert_to_numpy(actual), oracle(x, q), tolerance)


@pytest.mark.parametrize("q", NORMS)
def test_in_every_mode(q, mode):
    x = normal(7, 4)

    def f(x):
        step = duality_map(x, q)
        return induced_norm(x, q), dual_norm(x, q), step, frobenius_norm(x)

    bound, norm, step, frobenius = evaluate(f, x, mode=mode)
    assert bound >= oracles.induced_norm(x, q) * (1 - 1e-12)
    assert bound <= 1.05 * oracles.induced_norm(x, q)
    assert_close(norm, oracles.dual_norm(x, q), 1e-5)
    assert_close(step, oracles.duality_map(x, q), 1e-5)
    assert_close(frobenius, np.linalg.norm(x), 1e-12)


@pytest.mark.parametrize("accuracy", ("high", "standard", "fast"))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("q", NORMS)
def test_duality_identities(q, shape, accuracy):
    """`<g, rho> = ||g||^2` and `||rho|| <= ||g||`, equal but for q = 2."""
    g = normal(*shape, seed=3)
    norm = float(dual_norm(g, q, accuracy=accuracy))
    step = ops.convert_to_numpy(duality_map(g, q, accuracy=accuracy))
    assert step.shape == g.shape
    assert_close(inner(g, step), norm**2, 5e-6)
    length = oracles.induced_norm(step, q)
    assert length <= norm * (1 + 1e-6)
    if q != 2 or accuracy == "high":
        assert_close(length, norm, 5e-6)
    assert norm <= oracles.dual_norm(g, q) * (1 + 1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("q", NORMS)
def test_dual_norm_bounds_every_product(q, shape):
    """It is the supremum over unit kernels: none gives more, rho gives it."""
    g = normal(*shape)
    norm = float(dual_norm(g, q, exact=True))
    for seed in range(20):
        k = normal(*shape, seed=100 + seed)
        assert inner(g, k) <= norm * oracles.induced_norm(k, q) * (1 + 1e-12)
    step = oracles.duality_map(g, q)
    assert_close(inner(g, step) / oracles.induced_norm(step, q), norm, 1e-12)


@pytest.mark.parametrize("q", (1, 2, "inf"))
def test_induced_norm_bounds_every_row(q):
    k = normal(6, 4)
    norm = float(induced_norm(k, q, exact=True))
    order = np.inf if q == "inf" else q
    for seed in range(20):
        x = normal(6, seed=seed)
        image = np.linalg.norm(x @ k, order)
        assert image <= norm * np.linalg.norm(x, order) * (1 + 1e-12)


def test_vectors_have_the_vector_norms():
    b = normal(7)
    for q, order, dual in ((1, 1, np.inf), (2, 2, 2), ("inf", np.inf, 1)):
        norm = induced_norm(b, q, exact=True)
        assert_close(norm, np.linalg.norm(b, order), 1e-12)
        norm = dual_norm(b, q, exact=True)
        assert_close(norm, np.linalg.norm(b, dual), 1e-12)
    assert_close(duality_map(b, 2), b, 5e-6)
    assert_close(duality_map(b, "inf"), np.sum(np.abs(b)) * np.sign(b), 1e-12)


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zero(shape, q):
    zero = np.zeros(shape)
    assert float(induced_norm(zero, q)) == 0.0
    assert float(dual_norm(zero, q)) == 0.0
    step = ops.convert_to_numpy(duality_map(zero, q))
    assert np.array_equal(step, zero)


@pytest.mark.parametrize("q", NORMS)
def test_empty(q):
    empty = np.zeros((0, 3))
    assert float(induced_norm(empty, q)) == 0.0
    assert float(dual_norm(empty, q)) == 0.0
    assert duality_map(empty, q).shape == (0, 3)


def test_first_of_equal_entries():
    g = np.array([[1.0, -2.0, 2.0], [-2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    rows = 4.0 * np.array([[0, -1, 0], [-1, 0, 0], [0, 0, 0]])
    columns = 6.0 * np.array([[0, -1, 1], [-1, 0, 0], [0, 0, 0]])
    assert_close(duality_map(g, 1), rows, 0.0)
    assert_close(duality_map(g, "inf"), columns, 0.0)


@pytest.mark.parametrize("bad", (np.nan, np.inf))
def test_not_a_number_is_not_hidden(bad, mode):
    """For q = 2; a largest entry hides NaN under XLA."""
    g = normal(4, 3)
    g[1, 1] = bad
    assert not np.isfinite(evaluate(lambda g: dual_norm(g, 2), g, mode=mode))
    assert not np.isfinite(evaluate(lambda g: induced_norm(g, 2), g, mode=mode))


# spectral_norm_upper_bound


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("squarings", (0, 1, 4, 7))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_upper_bound_is_above_and_tight(shape, squarings, dtype):
    x = normal(*shape, dtype=dtype)
    norm = oracles.singular_values(x)[0]
    bound = float(spectral_norm_upper_bound(x, squarings=squarings))
    rank = min(oracles.as_matrix(x).shape)
    assert norm <= bound
    assert bound <= norm * rank ** (0.25 / 2**squarings) * (1 + 1e-5)


@pytest.mark.parametrize("squarings", (0, 4))
def test_upper_bound_at_its_limits(squarings, mode):
    """Equal to the norm at rank one, `r^(1/2^(s+2))` of it for isometries."""

    def f(x):
        return spectral_norm_upper_bound(x, squarings=squarings)

    x = np.outer(normal(784), normal(300, seed=1)).astype("float32")
    norm = np.linalg.norm(x.astype("float64"), 2)
    assert norm <= evaluate(f, x, mode=mode) <= norm * (1 + 1e-4)
    x = np.eye(300, 784, dtype="float32")
    expected = 300.0 ** (0.25 / 2**squarings)
    assert_close(evaluate(f, x, mode=mode), expected, 1e-4)


def test_upper_bound_of_a_long_vector(mode):
    x = normal(200_000, dtype="float32")
    norm = np.linalg.norm(x.astype("float64"))
    bound = evaluate(spectral_norm_upper_bound, x, mode=mode)
    assert norm <= bound <= norm * (1 + 1e-4)


@pytest.mark.parametrize("scale", EXTREMES)
@pytest.mark.parametrize("shape", ((1, 5), (5, 4), (4, 5), (5,)), ids=str)
def test_norms_of_extreme_entries(shape, scale, mode):
    x = normal(*shape, dtype="float32")

    def f(x):
        return spectral_norm_upper_bound(x), frobenius_norm(x)

    expected = evaluate(f, x, mode=mode)
    actual = evaluate(f, np.float32(scale) * x, mode=mode)
    for a, b in zip(actual, expected):
        assert_close(a / scale, b, 1e-5)


def test_frobenius_norm():
    x = normal(3, 4, 5)
    assert_close(frobenius_norm(x), np.linalg.norm(x), 1e-12)
    assert float(frobenius_norm(np.zeros((2, 2)))) == 0.0
    assert float(frobenius_norm(np.zeros((2, 0)))) == 0.0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_matrix(shape):
    x = normal(*shape)
    matrix = ops.convert_to_numpy(as_matrix(ops.convert_to_tensor(x)))
    assert np.array_equal(matrix, oracles.as_matrix(x))


# Half precision and refusals


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
@pytest.mark.parametrize("q", NORMS)
def test_half_precision_is_computed_in_float32(q, dtype):
    g = ops.cast(normal(6, 4), dtype)
    exact = ops.convert_to_numpy(ops.cast(g, "float64"))
    norm = dual_norm(g, q)
    assert helpers.dtype_of(norm) == "float32"
    assert helpers.dtype_of(induced_norm(g, q)) == "float32"
    assert_close(norm, oracles.dual_norm(exact, q), 1e-5)
    step = duality_map(g, q)
    assert helpers.dtype_of(step) == dtype
    step = ops.convert_to_numpy(ops.cast(step, "float32"))
    assert_close(step, oracles.duality_map(exact, q), 2.0**-8)


@pytest.mark.parametrize("q", (0, 3, "1", "2", None, True, 2.5))
@pytest.mark.parametrize("f", (induced_norm, dual_norm, duality_map))
def test_refuses_q(f, q):
    with pytest.raises(
        ValueError, match=r"(?s)`norm`.*\(1, 2, 'inf'\).*Received"
    ):
        f(normal(2, 2), q)


@pytest.mark.parametrize("squarings", (-1, 1.0, None, True))
def test_refuses_squarings(squarings):
    with pytest.raises(ValueError, match=r"`squarings`.*Received"):
        spectral_norm_upper_bound(normal(2, 2), squarings=squarings)


def test_refuses_integers():
    x = np.ones((2, 2), "int32")
    with pytest.raises(ValueError, match=r"`kernel`.*Received"):
        induced_norm(x, 1)
    with pytest.raises(ValueError, match=r"`kernel`.*Received"):
        spectral_norm_upper_bound(x)
    with pytest.raises(ValueError, match=r"`gradient`.*Received"):
        dual_norm(x, 1)
    with pytest.raises(ValueError, match=r"`gradient`.*Received"):
        duality_map(x, 2)
