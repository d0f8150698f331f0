"""Any matrix as sigma between two products of Householder reflectors."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import assert_close
from tests.linalg.cases import BAD_VECTORS
from tests.linalg.cases import DTYPES
from tests.linalg.cases import SHAPES
from tests.linalg.cases import TOLERANCE
from tests.linalg.cases import is_packed
from tests.linalg.cases import normal
from tests.linalg.cases import random_orthogonal
from tests.linalg.cases import zero_rows
from tf_spectral.linalg.factorization import svd_factors_from_matrix


def matrix_of_spectrum(singular_values, n_in, n_out, seed=0):
    k = len(singular_values)
    left = random_orthogonal(n_in, seed=seed)[:, :k]
    right = random_orthogonal(n_out, seed=seed + 1)[:, :k]
    return (left * np.asarray(singular_values)) @ right.T


def factors_of(kernel, reflectors=None):
    factors = svd_factors_from_matrix(kernel, reflectors)
    assert all(ops.is_tensor(factor) for factor in factors)
    return tuple(ops.convert_to_numpy(factor) for factor in factors)


def assert_exact_factors(kernel, tolerance=1e-12):
    """Shapes, packing, sigma = S >= 0 and the round trip; gives factors."""
    n_in, n_out = kernel.shape
    k = min(n_in, n_out)
    u, sigma, v = factors_of(kernel)
    assert u.shape == (k, n_out)
    assert sigma.shape == (k,)
    assert v.shape == (k, n_in)
    assert is_packed(u) and is_packed(v)
    scale = np.linalg.norm(kernel, 2) or 1.0
    singular_values = np.linalg.svd(kernel.astype("float64"), compute_uv=False)
    assert np.all(sigma >= 0.0)
    assert_close(sigma, singular_values, tolerance, scale)
    assert_close(oracles.spectral_kernel(u, sigma, v), kernel, tolerance, scale)
    return u, sigma, v


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_in,n_out", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_matrix_round_trip(n_in, n_out, dtype, seed):
    kernel = normal(n_in, n_out, dtype=dtype, seed=seed)
    factors = assert_exact_factors(kernel, TOLERANCE[dtype])
    assert all(helpers.dtype_of(factor) == dtype for factor in factors)


@pytest.mark.parametrize("n_in,n_out", [(64, 64), (40, 90), (90, 40)])
def test_larger_matrix_round_trip(n_in, n_out):
    assert_exact_factors(normal(n_in, n_out))


@pytest.mark.parametrize("n_in,n_out", SHAPES)
def test_zero_matrix(n_in, n_out):
    _, sigma, _ = assert_exact_factors(np.zeros((n_in, n_out)))
    assert np.array_equal(sigma, np.zeros(min(n_in, n_out)))


@pytest.mark.parametrize("n_in,n_out", SHAPES)
def test_rank_one(n_in, n_out):
    kernel = np.outer(normal(n_in), normal(n_out, seed=1))
    _, sigma, _ = assert_exact_factors(kernel)
    assert np.all(sigma[1:] <= 1e-12 * sigma[0])


@pytest.mark.parametrize("n", (1, 2, 3, 4, 5, 8))
@pytest.mark.parametrize("sign", (1.0, -1.0))
def test_identity_and_its_negative_waste_no_reflector(n, sign):
    """Only an odd number of zero rows that parity demands: at most one."""
    u, _, v = assert_exact_factors(sign * np.eye(n))
    assert zero_rows(u, v) == (1 if sign**n < 0 else 0)


def test_singular_values_may_repeat_up_to_rounding():
    kernel = -np.diag(1.0 + 1e-15 * np.array([2.0, 1.0, -1.0, -2.0]))
    u, _, v = assert_exact_factors(kernel)
    assert zero_rows(u, v) == 0


@pytest.mark.parametrize("n", (2, 3, 4, 7))
@pytest.mark.parametrize("determinant", (1, -1))
def test_orthogonal_matrix_wastes_no_reflector(n, determinant):
    kernel = random_orthogonal(n, seed=n, determinant=determinant)
    u, _, v = assert_exact_factors(kernel)
    assert zero_rows(u, v) == (1 if determinant < 0 else 0)


@pytest.mark.parametrize("n", (1, 2, 3, 4, 7))
@pytest.mark.parametrize("determinant", (1, -1))
@pytest.mark.parametrize("seed", range(3))
def test_parity_of_zero_rows(n, determinant, seed):
    kernel = normal(n, n, seed=seed)
    if np.linalg.det(kernel) * determinant < 0:
        kernel[0] *= -1.0
    u, _, v = assert_exact_factors(kernel)
    assert zero_rows(u, v) % 2 == (1 if determinant < 0 else 0)


@pytest.mark.parametrize(
    "diagonal",
    [
        (-3.0, -2.0, -1.0),
        (1.0, -2.0, 3.0),
        (-1.0, 1.0, -1.0, 1.0),
        (2.0, 2.0, -2.0),
        (5.0, 0.0, -5.0, 0.0),
    ],
)
def test_diagonal_with_negative_entries(diagonal):
    u, _, v = assert_exact_factors(np.diag(diagonal))
    determinant = np.prod(diagonal)
    if determinant:
        assert zero_rows(u, v) % 2 == (1 if determinant < 0 else 0)


@pytest.mark.parametrize(
    "singular_values",
    [
        (2.0, 2.0, 1.0, 1.0),
        (3.0, 1.0, 1.0, 0.0),
        (1.0, 1.0, 0.0, 0.0),
        (1.0, 1.0 + 1e-13, 1.0 - 1e-13, 1.0),
        (1.0, 1.0 + 1e-7, 1.0 - 1e-7, 1.0),
        (1e8, 1.0, 1e-4, 1e-8),
    ],
)
@pytest.mark.parametrize("n_in,n_out", [(4, 4), (4, 6), (6, 4)])
def test_repeated_and_spread_singular_values(singular_values, n_in, n_out):
    assert_exact_factors(matrix_of_spectrum(singular_values, n_in, n_out))


@pytest.mark.parametrize("scale", (1e-150, 1e-20, 1e20, 1e150))
def test_matrix_of_any_scale(scale):
    assert_exact_factors(scale * normal(4, 3))


@pytest.mark.parametrize("n_in,n_out", [(5, 5), (4, 7), (7, 4)])
@pytest.mark.parametrize("reflectors", (1, 2, 3, (1, 3), (3, 1), (4, 2)))
def test_fewer_reflectors(n_in, n_out, reflectors):
    """The first triplets are exact, sigma is least squares for the rest."""
    kernel = normal(n_in, n_out)
    pair = (reflectors,) * 2 if isinstance(reflectors, int) else reflectors
    u, sigma, v = factors_of(kernel, reflectors)
    k, exact = min(n_in, n_out), min(pair)
    assert u.shape == (pair[0], n_out)
    assert sigma.shape == (k,)
    assert v.shape == (pair[1], n_in)
    assert is_packed(u) and is_packed(v)
    singular_values = np.linalg.svd(kernel, compute_uv=False)
    assert_close(sigma[:exact], singular_values[:exact], 1e-12)
    left = oracles.householder_product(v)[:, :k]
    right = oracles.householder_product(u)[:, :k]
    assert_close(sigma, np.diag(left.T @ kernel @ right), 1e-12)
    residual = kernel - oracles.spectral_kernel(u, sigma, v)
    directions = left[:, :exact], right[:, :exact]
    assert_close(residual.T @ directions[0], np.zeros((n_out, exact)), 1e-12)
    assert_close(residual @ directions[1], np.zeros((n_in, exact)), 1e-12)


@pytest.mark.parametrize("n_in,n_out", [(5, 5), (4, 7), (7, 4)])
@pytest.mark.parametrize("m_u,m_v", [(1, 3), (3, 1), (4, 2)])
def test_every_reflector_of_the_longer_side_is_used(n_in, n_out, m_u, m_v):
    """Column i < m of each side is a singular vector of the kernel."""
    kernel = normal(n_in, n_out)
    u, _, v = factors_of(kernel, (m_u, m_v))
    squares = np.linalg.svd(kernel, compute_uv=False) ** 2
    right = oracles.householder_product(u)[:, :m_u]
    left = oracles.householder_product(v)[:, :m_v]
    scale = squares[0]
    assert_close(kernel.T @ kernel @ right, right * squares[:m_u], 1e-12, scale)
    assert_close(kernel @ kernel.T @ left, left * squares[:m_v], 1e-12, scale)


@pytest.mark.parametrize("n_in,n_out", [(5, 5), (4, 7), (7, 4)])
@pytest.mark.parametrize("rank", (1, 2, 3))
def test_as_many_reflectors_as_the_rank_are_exact(n_in, n_out, rank):
    kernel = matrix_of_spectrum(np.arange(rank, 0.0, -1.0), n_in, n_out)
    u, sigma, v = factors_of(kernel, rank)
    assert_close(oracles.spectral_kernel(u, sigma, v), kernel, 1e-12)


@pytest.mark.parametrize("n_in,n_out", SHAPES)
def test_all_reflectors_by_number_or_by_pair(n_in, n_out):
    kernel, k = normal(n_in, n_out), min(n_in, n_out)
    for reflectors in (k, (k, k)):
        u, sigma, v = factors_of(kernel, reflectors)
        assert_close(oracles.spectral_kernel(u, sigma, v), kernel, 1e-12)


def test_factors_are_reproducible_and_leave_the_input_alone():
    kernel = np.eye(4)
    first = factors_of(kernel)
    second = factors_of(ops.convert_to_tensor(kernel))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(kernel, np.eye(4))


def test_factors_leave_the_global_seed_alone():
    expected = np.random.RandomState(7).normal()
    np.random.seed(7)
    svd_factors_from_matrix(np.eye(3))
    assert np.random.normal() == expected


# Counts


@pytest.mark.parametrize("n,m", [(1, 1), (5, 1), (5, 3), (5, 5), (128, 16)])
def test_packed_factor_has_the_free_entries_of_the_formula(n, m):
    factors = svd_factors_from_matrix(normal(n, n), m)
    u, sigma, v = (ops.convert_to_numpy(factor) for factor in factors)
    assert oracles.count_packed(m, n) == m * n - m * (m - 1) // 2
    assert np.count_nonzero(u) <= oracles.count_packed(m, n)
    # A generic matrix has at most one dead reflector, the scalar one.
    for vectors in (u, v):
        dead = oracles.count_packed(m, n) - np.count_nonzero(vectors)
        assert dead <= (1 if m == n else 0)
    assert sigma.shape == (n,)


def test_parameter_count_of_the_paper():
    assert oracles.count_spectral_rnn(1, 128, 10, 16, 16) == 5520
    for n in (1, 7, 32):
        full = oracles.count_spectral_rnn(3, n, 2, n, n)
        assert full == (2 + 3 + n + 3) * n


# Refusals and half precision


@pytest.mark.parametrize("kernel", BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_factors_refuse_kernel(kernel):
    with pytest.raises(ValueError, match=r"(?s)`kernel`.*Received"):
        svd_factors_from_matrix(kernel)


@pytest.mark.parametrize(
    "reflectors", (-1, 6, (1, 6), (-1, 1), (1, 2, 3), (1,))
)
def test_factors_refuse_reflectors(reflectors):
    with pytest.raises(ValueError, match=r"(?s)`reflectors`.*Received"):
        svd_factors_from_matrix(normal(5, 5), reflectors)


def test_factors_of_bfloat16():
    kernel = ops.cast(normal(4, 3), "bfloat16")
    exact = ops.convert_to_numpy(ops.cast(kernel, "float64"))
    factors = svd_factors_from_matrix(kernel)
    assert {helpers.dtype_of(factor) for factor in factors} == {"bfloat16"}
    u, sigma, v = (
        ops.convert_to_numpy(ops.cast(factor, "float64")) for factor in factors
    )
    # Six reflectors and sigma, each rounded to eight bits.
    round_trip = oracles.spectral_kernel(u, sigma, v)
    assert_close(round_trip, exact, 8 * 2.0**-7, np.linalg.norm(exact, 2))
