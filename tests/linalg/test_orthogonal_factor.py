"""Any orthogonal matrix as a product of Householder reflectors."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.linalg.cases import DTYPES
from tests.linalg.cases import TOLERANCE
from tests.linalg.cases import has_unit_or_zero_rows
from tests.linalg.cases import is_packed
from tests.linalg.cases import normal
from tests.linalg.cases import random_orthogonal
from tests.linalg.cases import zero_rows
from tf_spectral.linalg.factorization import reflectors_from_orthogonal
from tf_spectral.linalg.householder import householder_product


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("determinant", (1, -1))
@pytest.mark.parametrize("n", (1, 2, 3, 4, 7, 32))
def test_orthogonal_round_trip(n, determinant, dtype):
    q = random_orthogonal(n, determinant=determinant).astype(dtype)
    vectors = reflectors_from_orthogonal(q)
    assert ops.is_tensor(vectors)
    assert helpers.dtype_of(vectors) == dtype
    product = evaluate(householder_product, vectors)
    assert_close(product, q, TOLERANCE[dtype])
    vectors = ops.convert_to_numpy(vectors)
    assert vectors.shape == (n, n)
    assert is_packed(vectors)
    assert has_unit_or_zero_rows(vectors, TOLERANCE[dtype])
    assert (-1) ** (n - zero_rows(vectors)) == determinant


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n,k", [(2, 1), (5, 1), (5, 3), (5, 4), (20, 7)])
def test_orthonormal_columns_round_trip(n, k, dtype):
    q = random_orthogonal(n)[:, :k].astype(dtype)
    vectors = ops.convert_to_numpy(reflectors_from_orthogonal(q))
    assert vectors.shape == (k, n)
    assert is_packed(vectors)
    product = evaluate(householder_product, vectors)
    assert_close(product[:, :k], q, TOLERANCE[dtype])


@pytest.mark.parametrize("n", (1, 2, 3, 4, 5))
def test_every_signed_permutation(n):
    rng = np.random.default_rng(n)
    for _ in range(10):
        signs = rng.choice([-1.0, 1.0], n)
        q = np.eye(n)[rng.permutation(n)] * signs
        vectors = reflectors_from_orthogonal(q)
        assert_close(evaluate(householder_product, vectors), q, 1e-12)


@pytest.mark.parametrize("n", (1, 2, 3, 6))
def test_identity_has_no_reflector_and_its_negative_has_all(n):
    vectors = ops.convert_to_numpy(reflectors_from_orthogonal(np.eye(n)))
    assert zero_rows(vectors) == n
    vectors = ops.convert_to_numpy(reflectors_from_orthogonal(-np.eye(n)))
    assert zero_rows(vectors) == 0
    assert_close(np.abs(vectors), np.eye(n), 1e-12)


@pytest.mark.parametrize("angle", (1e-3, 1e-9, 1e-15, 1e-200))
def test_no_cancellation_near_the_identity(angle):
    """`x_1 - ||x||` of a nearly constant column would lose all digits."""
    q = oracles.block_rotation([angle, -angle], 5)
    vectors = ops.convert_to_numpy(reflectors_from_orthogonal(q))
    assert np.isfinite(vectors).all()
    assert has_unit_or_zero_rows(vectors, 1e-12)
    product = oracles.householder_product(vectors)
    assert_close(product, q, 1e-14)
    # Small entries keep their own digits, down to the rounding of q itself.
    scale = max(angle, np.finfo("float64").eps)
    assert_close(product[1, 0], q[1, 0], 1e-6, scale)


def test_orthogonal_factor_accepts_a_tensor():
    q = random_orthogonal(4)
    vectors = reflectors_from_orthogonal(ops.convert_to_tensor(q))
    assert_close(evaluate(householder_product, vectors), q, 1e-12)


def test_orthogonal_factor_leaves_the_input_alone():
    q = random_orthogonal(4)
    reflectors_from_orthogonal(q)
    assert np.array_equal(q, random_orthogonal(4))


@pytest.mark.parametrize(
    "q",
    [
        normal(4, 4),
        1.01 * random_orthogonal(4),
        np.zeros((3, 3)),
        random_orthogonal(4)[:, [0, 1, 1]],
        np.full((2, 2), np.nan),
        random_orthogonal(4)[:2],
        random_orthogonal(4)[0],
        random_orthogonal(4)[None],
        np.eye(3, dtype="int32"),
        np.eye(3, dtype="complex64"),
    ],
    ids=(
        "random scaled zero repeated nan wide vector batch integer complex"
    ).split(),
)
def test_refuses_what_is_not_orthogonal(q):
    with pytest.raises(ValueError, match=r"(?s)`q`.*Received"):
        reflectors_from_orthogonal(q)
