"""Initial orthogonal matrices: their blocks, angles, moments and seeds."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.initializers import BlockRotation
from tf_spectral.initializers import Cayley
from tf_spectral.initializers import Haar
from tf_spectral.initializers import get_orthogonal_initializer

ALL = (BlockRotation, Cayley, Haar)
EXACT = {"float64": 1e-14, "float32": 1e-6}


def drawn(initializer, *shape, dtype="float64"):
    return ops.convert_to_numpy(initializer(shape, dtype=dtype))


def angles_of(matrix):
    """Of the planes, in the orientation of the papers: the transpose."""
    d = len(matrix) // 2 * 2
    first = range(0, d, 2)
    w = matrix.T
    return np.array([np.arctan2(w[i + 1, i], w[i, i]) for i in first])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("determinant", [None, 1, -1])
@pytest.mark.parametrize("d", [1, 2, 3, 6, 7])
def test_orthogonal_with_its_determinant(kind, dtype, determinant, d):
    for seed in range(3):
        q = drawn(kind(determinant=determinant, seed=seed), d, d, dtype=dtype)
        assert q.dtype == dtype
        assert_close(q.T @ q, np.eye(d), EXACT[dtype])
        sign = np.linalg.det(q.astype("float64"))
        if determinant is not None:
            assert_close(sign, determinant, 1e-5)
        elif kind is not Haar:
            assert_close(sign, 1.0, 1e-5)


@pytest.mark.parametrize(
    "make", [BlockRotation, lambda **o: BlockRotation("uniform", **o), Cayley]
)
@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("d", [6, 7])
def test_blocks_rotate_planes(make, determinant, d):
    q = drawn(make(determinant=determinant, seed=2), d, d)
    q[:, -1] *= determinant
    expected = np.eye(d)
    for p, t in enumerate(angles_of(q)):
        c, s = np.cos(t), np.sin(t)
        block = slice(2 * p, 2 * p + 2)
        expected[block, block] = [[c, s], [-s, c]]
    assert_close(q, expected, 1e-14)


def cayley(a):
    """`(I + A)^-1 (I - A)`, as in the papers."""
    return np.linalg.solve(np.eye(len(a)) + a, np.eye(len(a)) - a)


def skew(values):
    a = np.zeros((2 * len(values),) * 2)
    for p, s in enumerate(values):
        a[2 * p, 2 * p + 1], a[2 * p + 1, 2 * p] = s, -s
    return a


def test_block_rotation_is_the_transform_of_the_paper():
    """By the dense Cayley transform, transposed."""
    q = drawn(BlockRotation("cayley", seed=5), 12, 12)
    s = np.tan(angles_of(q) / 2)
    assert np.ptp(s) > 1.0
    assert_close(q, cayley(skew(s)).T, 1e-13)


def test_cayley_is_the_transform_of_the_paper():
    q = drawn(Cayley(seed=5), 12, 12)
    u = angles_of(q)
    s = np.sqrt((1 - np.cos(u)) / (1 + np.cos(u)))
    assert_close(q, cayley(skew(s)).T, 1e-13)


def test_reference_of_henaff():
    """math 8: s = 1 is a quarter turn."""
    assert_close(cayley(skew([1.0])), [[0.0, -1.0], [1.0, 0.0]], 1e-15)


@pytest.mark.parametrize(
    "make,low,high,to_uniform",
    [
        (BlockRotation, -np.pi, np.pi, lambda t: np.tan(t / 2)),
        (lambda **o: BlockRotation("uniform", **o), -np.pi, np.pi, lambda t: t),
        (Cayley, 0.0, np.pi / 2, lambda t: t),
    ],
    ids=("block", "uniform", "cayley"),
)
def test_angles_are_distributed_as_they_say(make, low, high, to_uniform):
    """Mean and variance of 1000 draws within five deviations, and range."""
    count = 1000
    q = drawn(make(seed=3), 2 * count, 2 * count)
    s = (to_uniform(angles_of(q)) - low) / (high - low)
    assert 0.0 <= s.min() < 0.02 and 0.98 < s.max() <= 1.0 + 1e-12
    assert abs(s.mean() - 0.5) < 5 * np.sqrt(1 / 12 / count)
    # The fourth central moment of U[0, 1] is 1/80.
    assert abs(s.var() - 1 / 12) < 5 * np.sqrt((1 / 80 - 1 / 144) / count)


@pytest.mark.parametrize("determinant,mean", [(None, 0), (1, 0), (-1, 0)])
def test_haar_moments(determinant, mean):
    """E tr Q = 0 and E (tr Q)^2 = 1, on both components for d = 4."""
    seed = keras.random.SeedGenerator(1)
    draw = Haar(determinant=determinant, seed=seed)
    draws = np.array([drawn(draw, 4, 4) for _ in range(400)])
    traces = np.trace(draws, axis1=1, axis2=2)
    squares = traces**2
    assert abs(traces.mean() - mean) < 5 * traces.std() / 20
    assert abs(squares.mean() - 1) < 5 * squares.std() / 20
    # Each column is uniform on the sphere.
    assert np.abs(draws.mean(axis=0)).max() < 5 * 0.5 / 20
    share = (np.linalg.det(draws) > 0).mean()
    expected = {None: 0.5, 1: 1.0, -1: 0.0}[determinant]
    assert abs(share - expected) <= (0.125 if determinant is None else 0)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (1, 4), (4, 1), (2, 3, 4)])
def test_haar_of_rectangles(shape):
    seed = keras.random.SeedGenerator(2)
    q = drawn(Haar(seed=seed), *shape)
    assert q.shape == shape
    flat = q.reshape(-1, shape[-1])
    flat = flat if flat.shape[0] >= flat.shape[1] else flat.T
    assert_close(flat.T @ flat, np.eye(flat.shape[1]), 1e-14)
    draws = np.array([drawn(Haar(seed=seed), *shape) for _ in range(200)])
    # No sign is preferred, and all entries have the same variance.
    limit = 5 / np.sqrt(len(flat) * 200)
    assert np.abs(draws.mean(axis=0)).max() < limit


@pytest.mark.parametrize("kind", ALL)
def test_seeds(kind):
    first, again = drawn(kind(seed=5), 6, 6), drawn(kind(seed=5), 6, 6)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, drawn(kind(seed=6), 6, 6))
    keras.utils.set_random_seed(3)
    unseeded = kind()
    values = drawn(unseeded, 6, 6)
    assert np.array_equal(values, drawn(unseeded, 6, 6))
    assert not np.array_equal(values, drawn(kind(), 6, 6))
    keras.utils.set_random_seed(3)
    assert np.array_equal(values, drawn(kind(), 6, 6))
    moving = kind(seed=keras.random.SeedGenerator(5))
    assert not np.array_equal(drawn(moving, 6, 6), drawn(moving, 6, 6))


@pytest.mark.parametrize("kind", ALL)
def test_config_round_trip(kind):
    first = kind(determinant=-1, seed=4)
    data = keras.initializers.serialize(first)
    copy = keras.initializers.get(data)
    assert type(copy) is kind
    assert copy.get_config() == first.get_config()
    assert np.array_equal(drawn(first, 5, 5), drawn(copy, 5, 5))


def test_config_keeps_the_angles_and_a_seed_generator():
    first = BlockRotation("uniform", seed=keras.random.SeedGenerator(7))
    copy = keras.initializers.get(keras.initializers.serialize(first))
    assert copy.angles == "uniform"
    assert isinstance(copy.seed, keras.random.SeedGenerator)


@pytest.mark.parametrize("kind", ALL)
def test_in_a_stock_layer(kind, tmp_path):
    layer = keras.layers.SimpleRNN(6, recurrent_initializer=kind())
    model = keras.Sequential([keras.Input((None, 2)), layer])
    r = ops.convert_to_numpy(layer.cell.recurrent_kernel)
    assert_close(r.T @ r, np.eye(6), 1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    assert type(again.recurrent_initializer) is kind
    assert np.array_equal(ops.convert_to_numpy(again.weights[1]), r)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", None])
def test_other_dtypes(kind, dtype):
    value = kind(seed=0)((4, 4), dtype=dtype)
    assert helpers.dtype_of(value) == (dtype or keras.config.floatx())
    q = ops.convert_to_numpy(ops.cast(value, "float32"))
    assert_close(q.T @ q, np.eye(4), 0.02)


@pytest.mark.parametrize("kind", ALL)
def test_in_graphs(kind):
    if BACKEND != "tensorflow":
        pytest.skip("of TensorFlow")
    import tensorflow as tf

    draw = kind(seed=4)
    inside = tf.function(lambda: draw((5, 5), "float64"))()
    assert_close(inside, drawn(draw, 5, 5), 1e-14)


def test_names():
    for name, kind in zip(("block_rotation", "cayley", "haar"), ALL):
        assert type(get_orthogonal_initializer(name)) is kind
    stock = get_orthogonal_initializer("glorot_uniform")
    assert type(stock) is keras.initializers.GlorotUniform
    own = Haar()
    assert get_orthogonal_initializer(own) is own
    with pytest.raises(ValueError, match='"haar" or a Keras .*=.BlockRotation'):
        get_orthogonal_initializer("BlockRotation")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("determinant", [0, 2, "1", -1.5])
def test_refuses_determinant(kind, determinant):
    with pytest.raises(ValueError, match="`determinant`.*Received"):
        kind(determinant=determinant)


def test_refuses_angles():
    with pytest.raises(
        ValueError, match="`angles`.*Received: angles='degrees'"
    ):
        BlockRotation("degrees")


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 2, 2)])
def test_refuses_shapes(shape):
    for kind in (BlockRotation, Cayley):
        with pytest.raises(ValueError, match="square.*Received: shape"):
            kind()(shape)
    if len(shape) < 2:
        with pytest.raises(ValueError, match="`shape`.*Received"):
            Haar()(shape)
    else:
        with pytest.raises(ValueError, match="`determinant`.*Received"):
            Haar(determinant=1)(shape)
