"""What the kept factors give for free, against NumPy on the matrix."""

import numpy as np
import pytest
from keras import ops

from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import grad
from tests.helpers import inner
from tf_spectral.linalg.spectral import times_diagonal_plus_low_rank
from tf_spectral.parametrizations import SVD


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def built(shape, reflectors=None, dtype="float64"):
    """Singular values from 0.5 to 1.5, one of them repeated."""
    svd = SVD(shape, reflectors, sigma_mode="free", dtype=dtype)
    svd.build()
    sigma = np.linspace(0.5, 1.5, min(shape))
    sigma[-1:] = sigma[len(sigma) // 2]
    # Entries may be negative: the singular values are their sizes.
    svd._sigma.assign(sigma * (-1.0) ** np.arange(min(shape)))
    return svd


def matrix_of(svd):
    return np.asarray(ops.convert_to_numpy(svd.matrix()), "float64")


@pytest.mark.parametrize("n,reflectors", [(1, None), (6, None), (6, (1, 3))])
def test_solves(n, reflectors, mode):
    svd = built((n, n), reflectors)
    x = normal(4, n)
    y = x @ matrix_of(svd)
    assert_close(evaluate(svd.solve, y, mode=mode), x, 1e-12)


def test_solves_rows_of_any_rank():
    svd = built((5, 5))
    for shape in ((5,), (2, 3, 5)):
        x = normal(*shape)
        assert_close(evaluate(svd.solve, x @ matrix_of(svd)), x, 1e-12)


def test_gradient_of_a_solution():
    svd = built((4, 4))
    y, cotangent = normal(3, 4), normal(3, 4, seed=1)
    actual = grad(lambda y: inner(svd.solve(y), cotangent), y)
    assert_close(actual, cotangent @ np.linalg.inv(matrix_of(svd)).T, 1e-12)


def test_solves_in_float32_as_well_as_the_condition_allows():
    svd = built((64, 64), dtype="float32")
    x = normal(8, 64).astype("float32")
    y = ops.convert_to_tensor((x @ matrix_of(svd)).astype("float32"))
    assert_close(evaluate(svd.solve, y), x, 1e-5)
    half = ops.cast(y, "bfloat16")
    assert "bfloat16" in str(svd.solve(half).dtype)


@pytest.mark.parametrize("n", (1, 2, 5))
def test_determinant(n):
    svd = built((n, n))
    _, expected = np.linalg.slogdet(matrix_of(svd))
    assert_close(evaluate(svd.log_abs_det), expected, 1e-12, 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 5), (5, 2)])
def test_condition_number(shape):
    svd = built(shape)
    expected = np.linalg.cond(matrix_of(svd))
    assert_close(evaluate(svd.condition_number), expected, 1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 6), (6, 3)])
def test_truncated_matrix_is_the_nearest(shape):
    """Eckart and Young: the error is that of the values left out."""
    svd = built(shape)
    matrix = matrix_of(svd)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    for rank in range(min(shape) + 1):
        low = evaluate(lambda k=rank: svd.truncated_matrix(k))
        assert np.linalg.matrix_rank(low, tol=1e-10) == rank
        error = np.linalg.norm(matrix - low)
        assert_close(error, np.sqrt(np.sum(sigma[rank:] ** 2)), 1e-12, 1.0)


def test_truncates_in_every_mode(mode):
    svd = built((3, 4))
    expected = evaluate(lambda: svd.truncated_matrix(2))
    actual = evaluate(lambda: svd.truncated_matrix(2), mode=mode)
    assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 6), (6, 3)])
@pytest.mark.parametrize("reflectors", [(1, 1), (0, 1), (0, 0)])
def test_times_diagonal_plus_low_rank(shape, reflectors):
    svd = built(shape, reflectors)
    x = normal(5, shape[0])

    def product(x):
        terms = svd.diagonal_plus_low_rank()
        return times_diagonal_plus_low_rank(x, *terms)

    actual = evaluate(product, x)
    assert_close(actual, x @ matrix_of(svd), 1e-12)


def test_refuses():
    wide, square = built((2, 3)), built((3, 3))
    for refused in (wide.log_abs_det, lambda: wide.solve(normal(1, 3))):
        with pytest.raises(ValueError, match="square.*Received"):
            refused()
    with pytest.raises(ValueError, match="`y`.*Received"):
        square.solve(normal(1, 4))
    with pytest.raises(ValueError, match="`y`.*Received"):
        square.solve(np.ones((1, 3), "int32"))
    for rank in (-1, 4, 1.0, True):
        with pytest.raises(ValueError, match="`rank`.*Received"):
            square.truncated_matrix(rank)


def test_condition_number_of_nothing_is_infinite():
    svd = SVD((3, 3), sigma_center=0.0, sigma_radius=0.1)
    assert np.isinf(float(svd.condition_number()))
