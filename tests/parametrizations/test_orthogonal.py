"""Orthogonal: a square matrix whose singular values are all 1."""

import numpy as np
import pytest
from keras import ops

from tests import oracles
from tests.helpers import assert_close
from tf_spectral.parametrizations import Orthogonal


def numpy_of(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("units, reflectors", [(1, 1), (5, None), (5, 2)])
def test_matrix_is_orthogonal_and_the_product_of_its_reflectors(
    units, reflectors
):
    q = Orthogonal(units, reflectors, dtype="float64")
    matrix = numpy_of(q.matrix())
    product = oracles.householder_product(numpy_of(q.u_vectors()))
    # The paper's U, in Keras' orientation.
    assert_close(matrix, product.T, 1e-13)
    assert_close(matrix @ matrix.T, np.eye(units), 1e-13)
    assert len(q.weights) == 1


@pytest.mark.parametrize("determinant", [1, -1])
def test_assigned_matrix_comes_back(determinant):
    target, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    target[0] *= determinant * np.sign(np.linalg.det(target))
    q = Orthogonal(6, dtype="float64")
    q.assign_matrix(target)
    assert_close(numpy_of(q.matrix()), target, 1e-12)


def test_refuses_a_matrix_that_it_cannot_hold():
    q = Orthogonal(4, 2, dtype="float64")
    before = numpy_of(q.matrix())
    with pytest.raises(ValueError, match="orthonormal"):
        q.assign_matrix(np.ones((4, 4)))
    with pytest.raises(ValueError, match="reflectors"):
        q.assign_matrix(-np.eye(4))
    assert np.array_equal(numpy_of(q.matrix()), before)


@pytest.mark.parametrize("reflectors", [7, -1, (2, 2)])
def test_refuses_reflectors(reflectors):
    with pytest.raises(ValueError, match="`reflectors`.*Received"):
        Orthogonal(6, reflectors)


def test_config_round_trip():
    q = Orthogonal(4, 2, matrix_regularizer="l2")
    assert Orthogonal.from_config(q.get_config()).get_config() == q.get_config()
