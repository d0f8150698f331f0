"""Exponential, Cayley transform and the four retractions."""

import functools

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
from tests.linalg.test_orthogonal import stiefel
from tests.linalg.test_orthogonal import tangent
from tf_spectral.linalg.exponential import cayley
from tf_spectral.linalg.exponential import expm
from tf_spectral.linalg.retractions import METHODS
from tf_spectral.linalg.retractions import retract
from tf_spectral.linalg.retractions import retract_skew
from tf_spectral.linalg.retractions import shortened

SIZES = (1, 2, 3, 6, 7, 32)
# Tall with more and with fewer than three times as many rows.
RECTANGLES = ((5, 3), (3, 5), (9, 2), (1, 5), (4, 1))


def skew(d, norm=1.0, seed=2):
    a = normal(d, d, seed=seed)
    a = a - a.T
    return a * (norm / max(np.linalg.norm(a, 2), 1e-30))


# expm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", (0.0, 1e-4, 1e-2, 3.0))
def test_expm_of_every_degree(norm, dtype, mode):
    a = skew(6, norm).astype(dtype)
    q = evaluate(expm, a, mode=mode)
    assert helpers.dtype_of(q) == dtype
    bound = {"float64": 2e-15, "float32": 1e-6}[dtype]
    assert_close(q, oracles.skew_expm(a), bound)


@pytest.mark.parametrize("d", SIZES)
def test_expm_of_any_matrix(d):
    a = normal(d, d)
    assert_close(evaluate(expm, a), oracles.expm(a), 1e-13)
    nilpotent = np.triu(10 * a, 1)
    assert_close(evaluate(expm, nilpotent), oracles.expm(nilpotent), 1e-13)


@pytest.mark.parametrize("norm", (3.0, 10.0))
def test_expm_in_float32_is_orthogonal_to_rounding(norm):
    a = skew(190, norm).astype("float32")
    q = evaluate(lambda a: expm(a, skew=True), a)
    assert_close(q, oracles.skew_expm(a), 4e-7, scale=max(1.0, norm))
    q = q.astype("float64")
    assert np.linalg.norm(q.T @ q - np.eye(190), 2) <= 1e-6


@pytest.mark.parametrize("value", (np.nan, 1e30))
def test_expm_of_what_is_too_large_ends(value, mode):
    a = np.array([[0.0, value], [-value, 0.0]], "float32")
    assert evaluate(expm, a, mode=mode).shape == (2, 2)
    if not np.isfinite(value):
        assert np.isnan(evaluate(expm, a, mode=mode)).any()


@pytest.mark.parametrize("norm", (1e-4, 4.0))
def test_gradient_of_expm(norm, mode):
    a, c = normal(4, 4) * norm, normal(4, 4, seed=1)
    actual = helpers.grad(lambda a: inner(expm(a), c), a, mode=mode)
    expected = oracles.gradient(lambda a: np.sum(oracles.expm(a) * c), a)
    assert_close(actual, expected, 1e-8)


def test_gradient_of_expm_with_a_huge_cotangent():
    a, c = skew(4, 0.3), 1e20 * normal(4, 4, seed=1)
    actual = helpers.grad(lambda a: inner(expm(a), c), a)
    expected = oracles.gradient(lambda a: np.sum(oracles.expm(a) * c), a)
    assert_close(actual, expected, 1e-8)


# Cayley


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", SIZES)
def test_cayley(d, dtype):
    a = skew(d, 2.0).astype(dtype)
    q = evaluate(cayley, a)
    assert helpers.dtype_of(q) == dtype
    assert_close(q, oracles.cayley(a.astype("float64")), TOLERANCE[dtype])


def test_henaff_block():
    # (I + A)^-1 (I - A) with A = [[0, s], [-s, 0]], s = 1 (math 8).
    a = np.array([[0.0, 1.0], [-1.0, 0.0]])
    expected = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert_close(evaluate(cayley, -2 * a), expected, 1e-15)


def test_gradient_of_cayley(mode):
    a, c = skew(4), normal(4, 4, seed=1)
    actual = helpers.grad(lambda a: inner(cayley(a), c), a, mode=mode)
    expected = oracles.gradient(lambda a: np.sum(oracles.cayley(a) * c), a)
    assert_close(actual, expected, 1e-8)


# retract_skew


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", SIZES)
def test_retraction_is_that_of_the_paper_transposed(d, dtype, method):
    r = random_orthogonal(d).astype(dtype)
    a = skew(d, 0.7).astype(dtype)
    moved = evaluate(functools.partial(retract_skew, method=method), r, a)
    assert helpers.dtype_of(moved) == dtype
    w, a = r.T.astype("float64"), a.astype("float64")
    # W <- W R(A) with A = -a.
    expected = oracles.retract(w, -a, method).T
    assert_close(moved, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("determinant", (-1, 1))
def test_retraction_keeps_the_determinant(method, determinant):
    r = random_orthogonal(6, determinant=determinant)
    moved = evaluate(
        functools.partial(retract_skew, method=method),
        r,
        skew(6, 2.0),
    )
    assert_close(moved @ moved.T, np.eye(6), 1e-13)
    assert_close(np.linalg.det(moved), determinant, 1e-12)


@pytest.mark.parametrize(
    "method,order", (("cayley", 3), ("polar", 3), ("qr", 2))
)
def test_order_of_agreement_with_the_exponential(method, order):
    r, a = random_orthogonal(6), skew(6)
    errors = []
    for h in (0.04, 0.02, 0.01):
        moved = evaluate(
            functools.partial(retract_skew, method=method), r, h * a
        )
        exact = evaluate(retract_skew, r, h * a)
        errors.append(np.linalg.norm(moved - exact))
    ratios = np.divide(errors[:-1], errors[1:])
    assert np.all(np.abs(np.log2(ratios) - order) < 0.1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.costly(keep=4)
def test_gradients_of_retractions(method, mode):
    r, a, c = random_orthogonal(3), skew(3, 0.8), normal(3, 3, seed=4)
    by_r, by_a = helpers.grad(
        lambda r, a: inner(retract_skew(r, a, method), c), r, a, mode=mode
    )

    def value(r, a):
        if method in ("expm", "cayley"):
            return np.sum(getattr(oracles, method)(a) @ r * c)
        moved = (np.eye(3) + a) @ r
        f = oracles.polar if method == "polar" else oracles.positive_qr
        return np.sum(f(moved.T).T * c)

    expected = oracles.gradient(lambda r: value(r, a), r)
    assert_close(by_r, expected, 1e-7)
    expected = oracles.gradient(lambda a: value(r, a), a)
    assert_close(by_a, expected, 1e-7)


@pytest.mark.parametrize("method", ("expm", "cayley", "polar"))
def test_small_steps_in_float32_drift_like_rotations(method):
    # math 3.2: 7e-8 sqrt(N); formed as one product they drift by 2e-5.
    r, a = random_orthogonal(64).astype("float32"), skew(64, 1e-2)
    a, steps = ops.convert_to_tensor(a.astype("float32")), 50
    w = ops.convert_to_tensor(r)
    for _ in range(steps):
        w = retract_skew(w, a, method)
    w = ops.convert_to_numpy(w).astype("float64")
    error = np.linalg.norm(w.T @ w - np.eye(64), 2)
    assert error <= 2 * 7e-8 * np.sqrt(steps)


# retract


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", RECTANGLES)
def test_retract_on_the_stiefel_manifold(shape, method):
    w = stiefel(*shape)
    z = tangent(w)
    run = functools.partial(retract, method=method)
    moved = evaluate(run, w, z)
    thin = moved if shape[0] > shape[1] else moved.T
    assert_close(thin.T @ thin, np.eye(min(shape)), 1e-13)
    slope = (evaluate(run, w, 1e-5 * z) - evaluate(run, w, -1e-5 * z)) / 2e-5
    assert_close(slope, z, 1e-8)


@pytest.mark.parametrize("method", ("expm", "cayley"))
@pytest.mark.parametrize("shape", RECTANGLES)
def test_retract_rotates_by_the_skew_matrix_of_the_tangent(shape, method):
    w = stiefel(*shape)
    z = tangent(w)
    moved = evaluate(functools.partial(retract, method=method), w, z)
    if shape[0] < shape[1]:
        w, z, moved = w.T, z.T, moved.T
    k = z - w @ (w.T @ z) / 2
    a = k @ w.T - w @ k.T
    assert_close(a @ w, z, 1e-12)
    f = oracles.skew_expm if method == "expm" else oracles.cayley
    assert_close(moved, f(a) @ w, 1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("d", (1, 6))
def test_retract_of_a_square_matrix(d, method):
    r, a = random_orthogonal(d), skew(d, 0.7)
    moved, same = evaluate(
        lambda r, a: (
            retract(r, a @ r, method),
            retract_skew(r, a, method),
        ),
        r,
        a,
    )
    assert_close(moved, same, 1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", ((2, 9),))
def test_retract_under_every_mode_and_in_float32(shape, method, mode):
    w, z = stiefel(*shape), tangent(stiefel(*shape))
    expected = evaluate(functools.partial(retract, method=method), w, z)
    moved = evaluate(
        functools.partial(retract, method=method),
        w.astype("float32"),
        z.astype("float32"),
        mode=mode,
    )
    assert helpers.dtype_of(moved) == "float32"
    assert_close(moved, expected, 2e-6)


# Refusals and half precision


@pytest.mark.parametrize("f", (retract, retract_skew))
@pytest.mark.parametrize(
    "point,vector,method",
    [
        (np.eye(3, dtype="int32"), np.eye(3), "expm"),
        (np.ones(3), np.ones(3), "expm"),
        (np.eye(3), np.eye(2), "expm"),
        (np.eye(3), np.eye(3), "euler"),
        (np.eye(3), np.eye(3), None),
    ],
    ids=("integer", "vector", "shapes", "method", "none"),
)
def test_refuses(f, point, vector, method):
    with pytest.raises(ValueError, match="Received"):
        f(point, vector, method)


@pytest.mark.parametrize(
    "f", (expm, cayley, lambda a: retract_skew(a, a)), ids=("e", "c", "r")
)
def test_refuses_what_is_not_square(f):
    with pytest.raises(ValueError, match=r"Expected shape \(d, d\)"):
        f(np.ones((2, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_computed_in_float32(method):
    r = ops.cast(np.eye(4), "bfloat16")
    a = ops.cast(skew(4, 0.5), "bfloat16")
    moved = retract_skew(r, a, method)
    assert helpers.dtype_of(moved) == "bfloat16"
    exact = ops.convert_to_numpy(ops.cast(a, "float64"))
    expected = oracles.retract(np.eye(4), -exact, method).T
    moved = ops.convert_to_numpy(ops.cast(moved, "float64"))
    assert np.max(np.abs(moved - expected)) <= 2.0**-8


# The longest step


@pytest.mark.parametrize("dtype", ("float64", "float32", "float16"))
def test_shortened_steps_keep_their_direction(dtype):
    for d in (1, 2, 7):
        for size in (0.0, 1e-30, 1.0, 3.1, 4.0, 1e3, 1e12, 1e30):
            if dtype == "float16" and size > 1e4:
                continue
            a = skew(d, size).astype(dtype)
            short = evaluate(shortened, a)
            assert helpers.dtype_of(short) == dtype
            norm = np.linalg.norm(short.astype("float64"), 2)
            exact = a.astype("float64")
            before = np.linalg.norm(exact, 2)
            if np.linalg.norm(exact) <= np.pi:
                assert np.array_equal(short, a)
            else:
                assert norm <= min(before, np.pi) * 1.002
                assert norm >= 0.8 * min(before, np.pi)
            if before > 0:
                rounding = 1e-2 if dtype == "float16" else 1e-6
                assert_close(short / (norm or 1), exact / before, rounding)
    assert evaluate(shortened, np.zeros((0, 3))).shape == (0, 3)


def test_shortened_in_every_mode(mode):
    a = np.concatenate([skew(4, 1e20), np.zeros((3, 4))])
    short = evaluate(shortened, a, mode=mode)
    assert 0.9 * np.pi < np.linalg.norm(short, 2) <= np.pi
