"""Initial reflectors: their matrices, their lengths, their seeds."""

import keras
import numpy as np
import pytest

from tests import oracles
from tests.helpers import assert_close
from tf_spectral import initializers
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.initializers import HaarReflectors
from tf_spectral.initializers import IdentityReflectors
from tf_spectral.initializers import RotationReflectors

ALL = [
    GaussianReflectors,
    HaarReflectors,
    IdentityReflectors,
    RotationReflectors,
]


def matrix_of(pair):
    """`U V^T`, the paper's orientation, with all singular values 1."""
    u, v = (oracles.householder_product(rows) for rows in pair)
    return u @ v.T


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("m, n", [(1, 1), (3, 5), (5, 5)])
def test_rows_are_packed_and_scaled(kind, scale, m, n):
    for rows in kind(reflector_scale=scale, seed=1)((m, n), (m, n)):
        assert rows.shape == (m, n)
        assert np.array_equal(rows, np.triu(rows))
        for i, row in enumerate(rows):
            mean_square = np.sum(row**2) / (n - i)
            # A row of zeros is the last of a square factor, at most.
            assert np.isclose(mean_square, scale**2) or (
                i == n - 1 and mean_square == 0
            )


@pytest.mark.parametrize("kind", ALL)
def test_seeds(kind):
    shapes = (3, 6), (3, 6)
    first, again = kind(seed=5)(*shapes), kind(seed=5)(*shapes)
    other = kind(seed=6)(*shapes)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    keras.utils.set_random_seed(3)
    drawn = kind()(*shapes)
    keras.utils.set_random_seed(3)
    assert np.array_equal(drawn, kind()(*shapes))


def test_scale_leaves_the_matrix():
    small = GaussianReflectors(0.01, seed=0)((3, 5), (2, 5))
    large = GaussianReflectors(100.0, seed=0)((3, 5), (2, 5))
    assert_close(matrix_of(small), matrix_of(large), 1e-13)


def test_identity_is_the_identity_without_zero_rows():
    pair = IdentityReflectors(seed=0)((4, 6), (4, 6))
    assert_close(matrix_of(pair), np.eye(6), 1e-14)
    assert all(np.linalg.norm(row) > 0 for rows in pair for row in rows)


@pytest.mark.parametrize("angles", ["uniform", "cayley"])
@pytest.mark.parametrize("m, n", [(1, 5), (2, 5), (5, 5), (3, 6)])
def test_rotation_turns_disjoint_planes(angles, m, n):
    pair = RotationReflectors(angles, seed=2)((m, n), (m, n))
    matrix = matrix_of(pair)
    planes = min(m, n // 2)
    limit = np.pi if angles == "uniform" else 2 * np.arctan(np.pi)
    for p in range(planes):
        block = matrix[2 * p : 2 * p + 2, 2 * p : 2 * p + 2]
        theta = np.arctan2(block[1, 0], block[0, 0])
        assert abs(theta) <= limit
        expected = [
            [np.cos(theta), -np.sin(theta)],
            [np.sin(theta), np.cos(theta)],
        ]
        assert_close(block, expected, 1e-13)
        matrix[2 * p : 2 * p + 2, 2 * p : 2 * p + 2] = np.eye(2)
    assert_close(matrix, np.eye(n), 1e-13)


def test_cayley_angles_are_those_of_henaff():
    # The block of s is the Cayley transform of [[0, s], [-s, 0]].
    s = 0.7
    a = np.array([[0.0, s], [-s, 0.0]])
    cayley = np.linalg.solve(np.eye(2) + a, np.eye(2) - a)
    t = 2 * np.arctan(s)
    assert_close(
        cayley, [[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]], 1e-14
    )


def test_haar_moments():
    # E tr Q = 0 and E (tr Q)^2 = 1 for Haar Q; 400 draws, six deviations.
    traces = [
        np.trace(
            oracles.householder_product(
                HaarReflectors(seed=seed + 1)((4, 4), (4, 4))[0]
            )
        )
        for seed in range(400)
    ]
    assert abs(np.mean(traces)) < 6 / 20
    assert (
        abs(np.mean(np.square(traces)) - 1) < 6 * np.std(np.square(traces)) / 20
    )


@pytest.mark.parametrize("kind", [IdentityReflectors, RotationReflectors])
@pytest.mark.parametrize("shapes", [((2, 4), (3, 4)), ((2, 4), (2, 5))])
def test_two_equal_factors_needed(kind, shapes):
    with pytest.raises(ValueError, match="Received"):
        kind()(*shapes)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_reflector_scale(scale):
    with pytest.raises(ValueError, match="`reflector_scale`.*Received"):
        GaussianReflectors(scale)


def test_refuses_angles():
    with pytest.raises(ValueError, match="`angles`.*Received"):
        RotationReflectors("degrees")


@pytest.mark.parametrize("kind", ALL)
def test_config_round_trip(kind):
    first = kind(reflector_scale=2.0, seed=4)
    config = keras.saving.serialize_keras_object(first)
    copy = initializers.get_reflector_initializer(config)
    assert type(copy) is kind
    assert np.array_equal(first((2, 4), (2, 4)), copy((2, 4), (2, 4)))
