"""Householder reflectors: gradients, zero rows and the scale of rows."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import grad
from tests.helpers import inner
from tests.linalg.cases import COUNTS
from tests.linalg.cases import DTYPES
from tests.linalg.cases import TOLERANCE
from tests.linalg.cases import is_packed
from tests.linalg.cases import normal
from tests.linalg.cases import without_row
from tf_spectral.linalg.householder import apply_householder
from tf_spectral.linalg.householder import compact_wy
from tf_spectral.linalg.householder import householder_product

# Zero rows and the scale of rows


@pytest.mark.parametrize("row", range(4))
def test_zero_row_is_the_identity_and_never_trains(row, mode):
    vectors = without_row(normal(4, 5), row)
    cotangent = normal(5, 5, seed=1)
    value, (gradient,) = helpers.value_and_grad(
        lambda v: inner(householder_product(v), cotangent),
        vectors,
        mode=mode,
    )
    expected = oracles.householder_product(vectors)
    assert_close(value, np.sum(expected * cotangent), 1e-12, scale=10.0)
    assert np.array_equal(gradient[row], np.zeros(5))
    assert_close(
        gradient,
        oracles.householder_product_gradient(vectors, cotangent),
        1e-10,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_rows_zero(dtype, mode):
    vectors = np.zeros((3, 4), dtype)
    x = normal(2, 4, dtype=dtype)
    cotangent = normal(2, 4, dtype=dtype, seed=1)
    product = evaluate(householder_product, vectors, mode=mode)
    assert_close(product, np.eye(4), 0.0)
    by_x, by_vectors = grad(
        lambda x, v: inner(apply_householder(x, v), cotangent),
        x,
        vectors,
        mode=mode,
    )
    assert_close(by_x, cotangent, 0.0)
    assert_close(by_vectors, np.zeros((3, 4)), 0.0)


@pytest.mark.parametrize("dtype,decades", [("float32", 25), ("float64", 200)])
def test_rows_may_have_any_scale(dtype, decades, mode):
    vectors = normal(5, 6, dtype=dtype)
    scales = 10.0 ** np.linspace(-decades, decades, 5)[:, None]
    scaled = (vectors * scales * [[1], [-1], [1], [-1], [1]]).astype(dtype)
    tolerance = TOLERANCE[dtype]
    expected = oracles.householder_product(scaled)
    assert_close(oracles.householder_product(vectors), expected, tolerance)
    product = evaluate(householder_product, scaled, mode=mode)
    assert_close(product, expected, tolerance)
    x = normal(3, 6, dtype=dtype, seed=1)
    for transpose in (False, True):
        y = evaluate(
            lambda x, v, t=transpose: apply_householder(x, v, transpose=t),
            x,
            scaled,
            mode=mode,
        )
        matrix = expected.T if transpose else expected
        assert_close(y, x @ matrix, tolerance)


@pytest.mark.parametrize("dtype,decades", [("float32", 25), ("float64", 200)])
def test_gradient_scales_inversely_with_the_row(dtype, decades, mode):
    vectors = normal(5, 6, dtype=dtype)
    scales = 10.0 ** np.linspace(-decades, decades, 5)[:, None]
    scaled = (vectors * scales).astype(dtype)
    cotangent = normal(6, 6, dtype=dtype, seed=1)
    gradient = grad(
        lambda v: inner(householder_product(v), cotangent),
        scaled,
        mode=mode,
    )
    assert np.isfinite(gradient).all()
    expected = oracles.householder_product_gradient(vectors, cotangent)
    actual = gradient.astype("float64") * scales
    assert_close(actual, expected, 10.0 * TOLERANCE[dtype])


# Gradients


@pytest.mark.parametrize("m,n", COUNTS)
def test_product_gradient(m, n, mode):
    vectors, cotangent = normal(m, n), normal(n, n, seed=1)
    gradient = grad(
        lambda v: inner(householder_product(v), cotangent),
        vectors,
        mode=mode,
    )
    by_differences = oracles.finite_difference(
        lambda v: np.sum(oracles.householder_product(v) * cotangent), vectors
    )
    by_loops = oracles.householder_product_gradient(vectors, cotangent)
    assert_close(gradient, by_differences, 1e-7, scale=1.0)
    assert_close(gradient, by_loops, 1e-10, scale=1.0)


@pytest.mark.parametrize("transpose", (False, True))
@pytest.mark.parametrize("m,n", COUNTS)
def test_apply_gradients(m, n, transpose, mode):
    x, vectors = normal(3, n), normal(m, n, seed=1)
    cotangent = normal(3, n, seed=2)
    by_x, by_vectors = grad(
        lambda x, v: inner(
            apply_householder(x, v, transpose=transpose), cotangent
        ),
        x,
        vectors,
        mode=mode,
    )
    order = slice(None, None, -1 if transpose else 1)

    def loss(x, vectors):
        y = oracles.apply_householder(x, vectors[order])
        return np.sum(y * cotangent)

    by_loops = oracles.apply_householder_gradients(x, vectors[order], cotangent)
    assert_close(by_x, by_loops[0], 1e-10, scale=1.0)
    assert_close(by_vectors[order], by_loops[1], 1e-10, scale=1.0)
    differences = oracles.finite_difference(lambda v: loss(x, v), vectors)
    assert_close(by_vectors, differences, 1e-7, scale=1.0)
    differences = oracles.finite_difference(lambda x: loss(x, vectors), x)
    assert_close(by_x, differences, 1e-7, scale=1.0)


def test_compact_form_gradient(mode):
    vectors, cotangent = normal(4, 6), normal(6, 6, seed=1)

    def loss(vectors):
        v, z = compact_wy(vectors)
        return -inner(ops.transpose(v) @ z, cotangent)

    gradient = grad(loss, vectors, mode=mode)
    expected = oracles.householder_product_gradient(vectors, cotangent)
    assert_close(gradient, expected, 1e-10)


@pytest.mark.parametrize("m,n", COUNTS)
def test_gradient_is_orthogonal_to_its_row(m, n, mode):
    vectors, cotangent = normal(m, n), normal(n, n, seed=1)
    gradient = grad(
        lambda v: inner(householder_product(v), cotangent),
        vectors,
        mode=mode,
    )
    radial = np.sum(vectors * gradient, axis=1)
    assert_close(radial, np.zeros(m), 1e-12 * max(1.0, np.abs(gradient).max()))


def test_masked_entries_have_zero_gradient():
    packed, cotangent = oracles.pack(normal(4, 4)), normal(4, 4, seed=1)
    mask = ops.convert_to_tensor(oracles.pack(np.ones((4, 4))))
    gradient = grad(
        lambda v: inner(householder_product(v * mask), cotangent), packed
    )
    assert is_packed(gradient)
    assert np.all(gradient[:3].any(axis=1))


# The worked example of math.md section 8

U_ROWS = np.array([[1.0, 3.0, 4.0], [0.0, 1.0, 1.0]])
V_ROWS = np.array([[1.0, 2.0, 2.0], [0.0, 1.0, -1.0]])
SIGMA = np.array([1.1, 1.0, 0.9])
KERNEL = [
    [0.5606837607, -0.4846153846, -0.7350427350],
    [-0.7017094017, -0.7384615385, 0.0376068376],
    [-0.6017094017, 0.4615384615, -0.5623931624],
]


def test_worked_example_product_and_compact_form():
    product = evaluate(householder_product, U_ROWS)
    u = np.array([[12, 4, 3], [-3, 12, -4], [-4, 3, 12]]) / 13
    assert_close(product, u, 1e-12)
    v, z = evaluate(compact_wy, U_ROWS)
    scales = np.linalg.norm(v, axis=1) / np.linalg.norm(U_ROWS, axis=1)
    t = np.array([[1 / 13, -7 / 13], [0, 1]])
    assert_close(z * scales[:, None], t @ U_ROWS, 1e-12)


def test_worked_example_kernel_and_gradients(mode):
    x, cotangent = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, -1.0])

    def matrix(u, sigma, v):
        u, v = householder_product(u), householder_product(v)
        return (v * sigma) @ ops.transpose(u)

    def loss(x, u, sigma, v):
        return inner(x[None] @ matrix(u, sigma, v), cotangent)

    kernel = evaluate(matrix, U_ROWS, SIGMA, V_ROWS, mode=mode)
    assert_close(kernel, KERNEL, 1e-10)
    assert_close(x @ kernel, [-2.6478632479, -0.5769230769, -2.347008547], 1e-9)
    expected = (
        [1.2957264957, -0.7393162393, -0.0393162393],
        [
            [-1.6700197239, -0.1331360947, 0.5173570020],
            [0.0, 1.5076923077, -1.5076923077],
        ],
        [-1.7777777778, -0.1452991453, 2.0],
        [
            [-3.2254510921, 1.6909781576, -0.0782526116],
            [0.0, 1.3991452991, 1.3991452991],
        ],
    )
    # The gradient by masked entries of row 1 is not part of the example.
    actual = grad(loss, x, U_ROWS, SIGMA, V_ROWS, mode=mode)
    for gradient, value in zip(actual, expected, strict=True):
        if gradient.ndim == 2:
            gradient = oracles.pack(gradient)
        assert_close(gradient, value, 1e-9)
