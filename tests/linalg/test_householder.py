"""Products of Householder reflectors, formed and applied."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.linalg.cases import BAD_VECTORS
from tests.linalg.cases import COUNTS
from tests.linalg.cases import DTYPES
from tests.linalg.cases import SHAPES
from tests.linalg.cases import TOLERANCE
from tests.linalg.cases import assert_rounded_once
from tests.linalg.cases import normal
from tests.linalg.cases import without_row
from tf_spectral.linalg.householder import apply_householder
from tf_spectral.linalg.householder import compact_wy
from tf_spectral.linalg.householder import householder_product

# householder_product


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m,n", COUNTS)
def test_product_is_the_product_of_reflectors(m, n, dtype, mode):
    vectors = normal(m, n, dtype=dtype)
    product = evaluate(householder_product, vectors, mode=mode)
    assert helpers.dtype_of(product) == dtype
    assert_close(
        product, oracles.householder_product(vectors), TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_product_of_packed_rows(dtype, mode):
    vectors = oracles.pack(normal(6, 6)).astype(dtype)
    product = evaluate(householder_product, vectors, mode=mode)
    assert_close(
        product, oracles.householder_product(vectors), TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_product_of_many_rows_is_accurate_and_orthogonal(dtype):
    vectors = normal(64, 96, dtype=dtype)
    product = evaluate(householder_product, vectors)
    tolerance = TOLERANCE[dtype]
    assert_close(product, oracles.householder_product(vectors), tolerance)
    assert_close(product.T @ product, np.eye(96), tolerance)


def test_product_of_no_rows_is_the_identity():
    product = evaluate(householder_product, np.zeros((0, 3)))
    assert_close(product, np.eye(3), 0.0)


@pytest.mark.parametrize("m", (1, 2, 3, 4))
def test_determinant_counts_the_nonzero_rows(m):
    vectors = normal(m, 4)
    for row in range(m):
        product = evaluate(householder_product, without_row(vectors, row))
        assert_close(np.linalg.det(product), (-1.0) ** (m - 1), 1e-12)


def test_equal_adjacent_rows_cancel():
    u, v = normal(2, 5)
    product = evaluate(householder_product, np.stack([u, v, 3.0 * v, u]))
    assert_close(product, np.eye(5), 1e-12)


def test_order_of_the_rows():
    u, v = normal(2, 4)
    first_u = evaluate(householder_product, np.stack([u, v]))
    first_v = evaluate(householder_product, np.stack([v, u]))
    assert_close(first_u, oracles.reflector(u) @ oracles.reflector(v), 1e-12)
    assert_close(first_v, first_u.T, 1e-12)
    assert np.max(np.abs(first_u - first_v)) > 0.1


def test_accepts_tensors_of_the_backend():
    vectors = normal(3, 4)
    product = householder_product(ops.convert_to_tensor(vectors))
    assert keras.ops.is_tensor(product)
    assert_close(
        ops.convert_to_numpy(product),
        oracles.householder_product(vectors),
        1e-12,
    )


# apply_householder


@pytest.mark.parametrize("transpose", (False, True))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m,n", COUNTS)
def test_apply_multiplies_rows(m, n, dtype, transpose, mode):
    x, vectors = normal(3, n, dtype=dtype), normal(m, n, dtype=dtype, seed=1)
    y = evaluate(
        lambda x, v: apply_householder(x, v, transpose=transpose),
        x,
        vectors,
        mode=mode,
    )
    rows = vectors[::-1] if transpose else vectors
    assert helpers.dtype_of(y) == dtype
    assert_close(y, oracles.apply_householder(x, rows), TOLERANCE[dtype])


@pytest.mark.parametrize("batch", ((), (1,), (3,), (2, 3), (2, 1, 3), (0,)))
@pytest.mark.parametrize("transpose", (False, True))
def test_apply_keeps_the_batch_shape(batch, transpose):
    x, vectors = normal(*batch, 4), normal(2, 4, seed=1)
    y = evaluate(
        lambda x, v: apply_householder(x, v, transpose=transpose), x, vectors
    )
    product = oracles.householder_product(vectors)
    assert_close(y, x @ (product.T if transpose else product), 1e-12)


def test_transpose_undoes_apply(mode):
    x, vectors = normal(3, 6), normal(4, 6, seed=1)

    def there_and_back(x, vectors):
        y = apply_householder(x, vectors)
        return apply_householder(y, vectors, transpose=True)

    assert_close(evaluate(there_and_back, x, vectors, mode=mode), x, 1e-12)


def test_apply_never_forms_the_product():
    # The product would take 160 GB.
    x = normal(2, 200_000, dtype="float32")
    vectors = normal(3, 200_000, dtype="float32", seed=1)
    y = evaluate(apply_householder, x, vectors)
    assert_close(y, oracles.apply_householder(x, vectors), 1e-5)


@pytest.mark.skipif(
    helpers.BACKEND != "tensorflow", reason="tf.function input signatures"
)
def test_apply_with_unknown_batch_shape():
    import tensorflow as tf

    signature = [
        tf.TensorSpec((None, None, 4), "float64"),
        tf.TensorSpec((3, 4), "float64"),
    ]
    f = tf.function(apply_householder, input_signature=signature)
    vectors = normal(3, 4, seed=1)
    for batch in ((2, 5), (1, 1), (0, 3)):
        x = normal(*batch, 4)
        expected = x @ oracles.householder_product(vectors)
        assert_close(f(x, vectors).numpy(), expected, 1e-12)


@pytest.mark.parametrize("n_in,n_out", SHAPES)
def test_chain_of_reflectors_is_the_spectral_kernel(n_in, n_out, mode):
    """x -> rows of v, scale and trim, rows of u in reverse (math.md 2.3)."""
    k = min(n_in, n_out)
    x, sigma = normal(3, n_in), normal(k, seed=1)
    u = oracles.pack(normal(max(1, n_out - 1), n_out, seed=2))
    v = oracles.pack(normal(max(1, n_in - 1), n_in, seed=3))

    def chain(x, u, sigma, v):
        h = apply_householder(x, v)[:, :k] * sigma
        h = ops.pad(h, [[0, 0], [0, n_out - k]])
        return apply_householder(h, u, transpose=True)

    kernel = oracles.spectral_kernel(u, sigma, v)
    y = evaluate(chain, x, u, sigma, v, mode=mode)
    assert_close(y, x @ kernel, 1e-12)
    singular_values = np.linalg.svd(kernel, compute_uv=False)
    assert_close(singular_values, np.sort(np.abs(sigma))[::-1], 1e-12)


# compact_wy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m,n", COUNTS)
def test_compact_form(m, n, dtype, mode):
    vectors = normal(m, n, dtype=dtype)
    v, z = evaluate(compact_wy, vectors, mode=mode)
    assert v.shape == z.shape == (m, n)
    assert helpers.dtype_of(v) == helpers.dtype_of(z) == dtype
    expected = oracles.householder_product(vectors)
    v, z = v.astype("float64"), z.astype("float64")
    assert_close(np.eye(n) - v.T @ z, expected, TOLERANCE[dtype])


def test_compact_form_keeps_the_directions():
    vectors = without_row(normal(4, 6), 2)
    v, z = evaluate(compact_wy, vectors)
    for row, vector in zip(v, vectors, strict=True):
        length = np.linalg.norm(row) * np.linalg.norm(vector)
        assert_close(np.dot(row, vector), length, 1e-12, scale=1.0)
    expected = oracles.householder_product(vectors)
    assert_close(np.eye(6) - v.T @ z, expected, 1e-12)


# Initialisers, as far as they speak of reflectors


def test_identity_initialiser():
    vectors = oracles.pack(normal(3, 5))
    product = evaluate(householder_product, vectors)
    back = evaluate(
        lambda x, v: apply_householder(x, v, transpose=True), product, vectors
    )
    assert_close(back, np.eye(5), 1e-12)


@pytest.mark.parametrize("n,planes,rest", [(4, 2, 0), (5, 2, 1), (6, 2, 3)])
def test_rotation_initialiser(n, planes, rest):
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, planes)
    phases = np.random.default_rng(1).uniform(-np.pi, np.pi, planes)
    rows = normal(rest, n)
    u, v = oracles.rotation_reflectors(angles, phases, rows, n)
    w = evaluate(
        lambda u, v: apply_householder(
            householder_product(u), v, transpose=True
        ),
        u,
        v,
    )
    assert_close(w, oracles.block_rotation(angles, n), 1e-12)


# Refusals and half precision


@pytest.mark.parametrize("vectors", BAD_VECTORS.values(), ids=BAD_VECTORS)
@pytest.mark.parametrize(
    "f",
    [
        householder_product,
        compact_wy,
        lambda vectors: apply_householder(np.ones((2, 3)), vectors),
    ],
    ids=("product", "compact", "apply"),
)
def test_refuses_vectors(f, vectors):
    with pytest.raises(ValueError, match=r"(?s)`vectors`.*Received"):
        f(vectors)


@pytest.mark.parametrize(
    "x",
    [
        np.ones((2, 3), "int32"),
        np.ones((2, 3), "complex64"),
        np.ones((2, 4)),
        np.float64(1.0),
    ],
    ids=("integer", "complex", "width", "scalar"),
)
def test_apply_refuses_x(x):
    with pytest.raises(ValueError, match=r"(?s)`x`.*Received"):
        apply_householder(x, np.ones((2, 3)))


def test_bfloat16_is_computed_in_float32():
    vectors = ops.cast(normal(12, 16), "bfloat16")
    x = ops.cast(normal(4, 16, seed=1), "bfloat16")
    exact_vectors = ops.convert_to_numpy(ops.cast(vectors, "float64"))
    exact_x = ops.convert_to_numpy(ops.cast(x, "float64"))
    expected = oracles.householder_product(exact_vectors)
    product = householder_product(vectors)
    assert helpers.dtype_of(product) == "bfloat16"
    assert_rounded_once(product, expected)
    for transpose in (False, True):
        y = apply_householder(x, vectors, transpose=transpose)
        assert helpers.dtype_of(y) == "bfloat16"
        matrix = expected.T if transpose else expected
        assert_rounded_once(y, exact_x @ matrix)


def test_float16_does_not_overflow():
    vectors = ops.cast(1e4 * normal(3, 8), "float16")
    product = householder_product(vectors)
    assert helpers.dtype_of(product) == "float16"
    exact = ops.convert_to_numpy(ops.cast(vectors, "float64"))
    assert_rounded_once(product, oracles.householder_product(exact))
