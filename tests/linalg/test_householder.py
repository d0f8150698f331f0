"""Products of Householder reflectors and the constructive theorems."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import grad
from tests.helpers import inner
from tf_spectral.linalg.factorization import reflectors_from_orthogonal
from tf_spectral.linalg.factorization import svd_factors_from_matrix
from tf_spectral.linalg.householder import apply_householder
from tf_spectral.linalg.householder import compact_wy
from tf_spectral.linalg.householder import householder_product

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
DTYPES = tuple(TOLERANCE)
# (m, n): one, fewer than n, exactly n and more than n reflectors.
COUNTS = ((1, 1), (3, 1), (1, 5), (3, 5), (5, 5), (8, 5))
# (n_in, n_out): square, wide, tall, single row, column and entry.
SHAPES = ((4, 4), (5, 5), (3, 6), (6, 3), (1, 4), (4, 1), (1, 1))


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def random_orthogonal(n, seed=0, determinant=None):
    q = np.linalg.qr(normal(n, n, seed=seed))[0]
    if determinant is not None and np.linalg.det(q) * determinant < 0:
        q[:, 0] *= -1.0
    return q


def without_row(vectors, row):
    vectors = np.array(vectors)
    vectors[row] = 0.0
    return vectors


def zero_rows(*factors):
    return sum(int(np.sum(~np.any(vectors, axis=1))) for vectors in factors)


def is_packed(vectors):
    return np.array_equal(vectors, oracles.pack(vectors))


def has_unit_or_zero_rows(vectors, tolerance):
    norms = np.linalg.norm(vectors, axis=1)
    return np.all(np.minimum(norms, np.abs(norms - 1.0)) <= tolerance)


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


# Initialisers and counts, as far as they speak of reflectors


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


# reflectors_from_orthogonal


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


# svd_factors_from_matrix


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


# Refusals and half precision

BAD_VECTORS = {
    "integer": np.ones((2, 3), "int32"),
    "bool": np.ones((2, 3), bool),
    "complex": np.ones((2, 3), "complex64"),
    "vector": np.ones(3),
    "scalar": np.float64(1.0),
    "batch": np.ones((2, 2, 3)),
}


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


def assert_rounded_once(actual, expected):
    """Within half a unit of bfloat16, of which float32 spoils little."""
    actual = ops.convert_to_numpy(ops.cast(actual, "float32"))
    error = np.abs(actual - expected)
    assert np.all(error <= 2.0**-8 * np.abs(expected) + 1e-5)


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
