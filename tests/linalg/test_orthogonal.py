"""Geometry of orthogonal matrices, and the way back to them."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles_orthogonal as oracles
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import inner
from tests.linalg.cases import DTYPES
from tests.linalg.cases import TOLERANCE
from tests.linalg.cases import normal
from tests.linalg.cases import random_orthogonal
from tf_spectral.linalg.orthogonal import nearest_orthogonal
from tf_spectral.linalg.orthogonal import orthogonality_error
from tf_spectral.linalg.orthogonal import reorthogonalize
from tf_spectral.linalg.orthogonal import riemannian_gradient
from tf_spectral.linalg.orthogonal import skew_gradient
from tf_spectral.linalg.orthogonal import tangent_projection

SIZES = (1, 2, 3, 6, 7, 32)
RECTANGLES = ((5, 3), (3, 5), (1, 4), (4, 1), (4, 4), (1, 1))


def stiefel(p, n, seed=0):
    q = np.linalg.qr(normal(max(p, n), max(p, n), seed=seed))[0]
    return q[:p, :n]


def tangent(w, seed=3):
    """A tangent vector by definition: the skew part of w^T z is all of it."""
    if w.shape[0] < w.shape[1]:
        return tangent(w.T, seed).T
    z = normal(*w.shape, seed=seed)
    product = w.T @ z
    return z - w @ (product + product.T) / 2


# Gradients


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", SIZES)
def test_gradients_are_those_of_the_paper_transposed(d, dtype, mode):
    r, g = random_orthogonal(d).astype(dtype), normal(d, d, dtype=dtype, seed=1)
    s, gradient = evaluate(
        lambda r, g: (skew_gradient(r, g), riemannian_gradient(r, g)),
        r,
        g,
        mode=mode,
    )
    assert helpers.dtype_of(s) == helpers.dtype_of(gradient) == dtype
    w, g = r.T.astype("float64"), g.T.astype("float64")
    scale = np.sqrt(d)
    assert_close(s, oracles.skew_gradient(w, g), TOLERANCE[dtype], scale)
    expected = oracles.riemannian_gradient(w, g).T
    assert_close(gradient, expected, TOLERANCE[dtype], scale)
    assert np.array_equal(s, -s.T)


def test_reference_values():
    g = [[0.0, 2.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]
    # math 8 is in the papers' orientation.
    s = evaluate(skew_gradient, np.eye(3), np.transpose(g))
    assert s.tolist() == [[0, 3, 0], [-3, 0, -3], [0, 3, 0]]
    assert_close(s[0, 1] / np.sqrt(2), 2.1213203436, 1e-10)


@pytest.mark.parametrize("d", SIZES[1:])
def test_partial_derivatives(d, mode):
    """`S_jl / sqrt(2)`, and together as long as the gradient."""
    r, g = random_orthogonal(d), normal(d, d, seed=1)
    j, l = np.transpose(oracles.all_pairs(d))  # noqa: E741
    s, gradient = evaluate(
        lambda r, g: (skew_gradient(r, g), riemannian_gradient(r, g)),
        r,
        g,
        mode=mode,
    )
    nabla = s[j, l] / np.sqrt(2)
    expected = [oracles.partial_derivative(r.T, g.T, *p) for p in zip(j, l)]
    assert_close(nabla, expected, 1e-12)
    assert_close(np.sum(nabla**2), np.sum(gradient**2), 1e-12)


def test_partial_derivative_is_the_slope_along_the_rotation():
    d, c = 5, normal(5, 5, seed=1)
    w = random_orthogonal(d)
    for j, l in oracles.all_pairs(d):  # noqa: E741

        def f(t, j=j, l=l):  # noqa: E741
            moved = w @ oracles.skew_expm(t * oracles.plane(d, j, l))
            return np.sum(np.sin(moved * c))

        slope = oracles.directional_derivative(f, 0.0, 1.0, h=1e-3)
        g = np.cos(w * c) * c
        s = evaluate(skew_gradient, w.T.copy(), g.T.copy())
        assert_close(s[j, l] / np.sqrt(2), slope, 1e-9, scale=1.0)


def test_coordinate_steps_are_unbiased():
    d, r, g = 6, random_orthogonal(6), normal(6, 6, seed=1)
    pairs = oracles.all_pairs(d)
    total, s = np.zeros((d, d)), evaluate(skew_gradient, r, g)
    for j, l in pairs:  # noqa: E741
        nabla = s[j, l] / np.sqrt(2)
        # D / D: the average over D pairs of D times the step.
        total += (r.T @ oracles.plane(d, j, l)).T * nabla
    assert_close(evaluate(riemannian_gradient, r, g), total, 1e-12)


@pytest.mark.parametrize("shape", RECTANGLES)
def test_tangent_projection(shape, mode):
    w, z = stiefel(*shape), normal(*shape, seed=1)
    projected, again = evaluate(
        lambda w, z: (
            tangent_projection(w, z),
            tangent_projection(w, tangent_projection(w, z)),
        ),
        w,
        z,
        mode=mode,
    )
    thin_w, thin_p = (
        (w, projected) if shape[0] > shape[1] else (w.T, projected.T)
    )
    product = thin_w.T @ thin_p
    assert_close(product, -product.T, 1e-12, scale=1.0)
    assert_close(again, projected, 1e-12, scale=1.0)
    # What was taken away is normal to every tangent vector.
    assert abs(np.sum((z - projected) * tangent(w))) < 1e-12


@pytest.mark.parametrize("shape", RECTANGLES)
def test_gradient_stands_for_the_derivative(shape, mode):
    w, g, z = stiefel(*shape), normal(*shape, seed=1), tangent(stiefel(*shape))
    gradient = evaluate(riemannian_gradient, w, g, mode=mode)
    assert_close(np.sum(gradient * z), np.sum(g * z), 1e-12, scale=1.0)


# The error


@pytest.mark.parametrize("shape", RECTANGLES + ((40, 30),))
def test_orthogonality_error(shape, mode):
    w = stiefel(*shape) + 0.01 * normal(*shape, seed=1)
    bound = evaluate(orthogonality_error, w, mode=mode)
    exact = evaluate(lambda w: orthogonality_error(w, exact=True), w)
    thin = w if shape[0] >= shape[1] else w.T
    gram = thin.T @ thin - np.eye(min(shape))
    expected = np.linalg.norm(gram, 2)
    assert_close(exact, expected, 1e-10)
    assert expected <= bound <= 1.09 * expected


@pytest.mark.parametrize("d", SIZES)
def test_orthogonality_error_of_float32_sees_its_rounding(d):
    w = random_orthogonal(d).astype("float32")
    error = float(evaluate(orthogonality_error, w))
    wide = w.astype("float64")
    expected = np.linalg.norm(wide.T @ wide - np.eye(d), 2)
    assert expected <= error <= 1.1 * expected + 1e-15


# The way back


@pytest.mark.parametrize("shape", RECTANGLES)
def test_reorthogonalize_squares_the_error(shape, mode):
    w = stiefel(*shape) + 0.02 * normal(*shape, seed=1)
    new = evaluate(reorthogonalize, w, mode=mode)
    if shape[0] < shape[1]:
        w, new = w.T, new.T
    identity = np.eye(min(shape))
    error = w.T @ w - identity
    expected = -0.75 * error @ error + error @ error @ error / 4
    assert_close(new.T @ new - identity, expected, 1e-11, scale=1.0)


def test_reorthogonalized_float32_is_rounded_once(mode):
    q = random_orthogonal(64)
    w = (q + 1e-6 * normal(64, 64, seed=1)).astype("float32")
    new = evaluate(reorthogonalize, w, mode=mode)
    assert helpers.dtype_of(new) == "float32"
    exact = oracles.polar(w.astype("float64"))
    # Half a unit of the largest entries.
    assert np.max(np.abs(new - exact)) <= 2.0**-25 + 1e-10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spread", (1e-3, 0.2, 10.0))
@pytest.mark.parametrize("shape", RECTANGLES)
def test_nearest_orthogonal(shape, spread, dtype):
    w = (stiefel(*shape) + spread * normal(*shape, seed=1)).astype(dtype)
    # Under XLA the gradient is tested too, below.
    q = evaluate(nearest_orthogonal, w)
    assert helpers.dtype_of(q) == dtype
    assert_close(q, oracles.polar(w.astype("float64")), TOLERANCE[dtype])
    thin = (q if shape[0] >= shape[1] else q.T).astype("float64")
    identity = np.eye(min(shape))
    bound = {"float64": 1e-14, "float32": 1e-6}[dtype]
    assert_close(thin.T @ thin, identity, bound)


@pytest.mark.parametrize("smallest", (1e-2, 1e-4, 1e-6))
def test_nearest_orthogonal_of_an_ill_conditioned_matrix(smallest):
    u, v = random_orthogonal(12), random_orthogonal(12, seed=1)
    w = (u * np.geomspace(1.0, smallest, 12)) @ v
    assert_close(evaluate(nearest_orthogonal, w), u @ v, 1e-7)


def test_nearest_orthogonal_keeps_the_determinant():
    for determinant in (-1, 1):
        q = random_orthogonal(7, determinant=determinant)
        near = evaluate(nearest_orthogonal, q + 0.05 * normal(7, 7, seed=1))
        assert_close(np.linalg.det(near), determinant, 1e-12)


def test_nan_stays_nan(mode):
    bad = evaluate(nearest_orthogonal, np.full((3, 3), np.nan), mode=mode)
    assert np.isnan(bad).all()


@pytest.mark.parametrize("spread", (0.02, 1.0))
@pytest.mark.parametrize("shape", ((3, 3), (2, 4)))
def test_gradient_of_nearest_orthogonal(shape, spread, mode):
    w = stiefel(*shape) + spread * normal(*shape, seed=1)
    c = normal(*shape, seed=2)
    actual = helpers.grad(
        lambda w: inner(nearest_orthogonal(w), c), w, mode=mode
    )
    expected = oracles.gradient(lambda w: np.sum(oracles.polar(w) * c), w)
    assert_close(actual, expected, 1e-7, scale=1.0)


# Refusals and half precision


@pytest.mark.parametrize(
    "f",
    (skew_gradient, riemannian_gradient, tangent_projection),
)
@pytest.mark.parametrize(
    "first,second",
    [
        (np.ones((3, 3), "int32"), np.ones((3, 3))),
        (np.ones(3), np.ones(3)),
        (np.ones((3, 3)), np.ones((3, 2))),
    ],
    ids=("integer", "vector", "shapes"),
)
def test_refuses(f, first, second):
    with pytest.raises(ValueError, match="Received"):
        f(first, second)


def test_refuses_what_is_not_square():
    wide = np.ones((2, 3))
    for f in (
        lambda: skew_gradient(wide, wide),
        lambda: reorthogonalize(np.ones(3)),
        lambda: nearest_orthogonal(np.ones((2, 2), "int32")),
        lambda: orthogonality_error(np.ones(2)),
    ):
        with pytest.raises(ValueError, match="Received"):
            f()


def test_half_precision_is_computed_in_float32():
    w = ops.cast(random_orthogonal(8), "bfloat16")
    for f in (nearest_orthogonal, reorthogonalize):
        q = f(w)
        assert helpers.dtype_of(q) == "bfloat16"
        exact = oracles.polar(ops.convert_to_numpy(ops.cast(w, "float64")))
        q = ops.convert_to_numpy(ops.cast(q, "float64"))
        assert np.max(np.abs(q - exact)) <= 2.0**-8
