"""What the tests of linalg share: sizes, matrices, and how to look at them."""

import numpy as np
from keras import ops

from tests import oracles

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
DTYPES = tuple(TOLERANCE)
# (m, n): one, fewer than n, exactly n and more than n reflectors.
COUNTS = ((1, 1), (3, 1), (1, 5), (3, 5), (5, 5), (8, 5))
# (n_in, n_out): square, wide, tall, single row, column and entry.
SHAPES = ((4, 4), (5, 5), (3, 6), (6, 3), (1, 4), (4, 1), (1, 1))
BAD_VECTORS = {
    "integer": np.ones((2, 3), "int32"),
    "bool": np.ones((2, 3), bool),
    "complex": np.ones((2, 3), "complex64"),
    "vector": np.ones(3),
    "scalar": np.float64(1.0),
    "batch": np.ones((2, 2, 3)),
}


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


def assert_rounded_once(actual, expected):
    """Within half a unit of bfloat16, of which float32 spoils little."""
    actual = ops.convert_to_numpy(ops.cast(actual, "float32"))
    error = np.abs(actual - expected)
    assert np.all(error <= 2.0**-8 * np.abs(expected) + 1e-5)
