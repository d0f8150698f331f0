"""Plane rotations of rows, one by one and in blocks."""

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
from tf_spectral.linalg.givens import partners
from tf_spectral.linalg.givens import rotate_block
from tf_spectral.linalg.givens import rotate_rows
from tf_spectral.linalg.givens import rotation_increments
from tf_spectral.linalg.matching import dominant_matching
from tf_spectral.linalg.orthogonal import riemannian_gradient
from tf_spectral.linalg.orthogonal import skew_gradient
from tf_spectral.linalg.pairings import disjoint_pairs
from tf_spectral.linalg.pairings import gauss_southwell_pair
from tf_spectral.linalg.pairings import round_count
from tf_spectral.linalg.pairings import round_robin_pairs

SIZES = (1, 2, 3, 6, 7, 32)


def some_pairs(d, seed=5):
    order = np.random.default_rng(seed).permutation(d).astype("int32")
    return order[: d // 2 * 2].reshape(-1, 2)


# Layout and values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", SIZES)
def test_rotations_are_those_of_the_paper_transposed(d, dtype):
    r, pairs = normal(d, d, dtype=dtype), some_pairs(d)
    angles = normal(len(pairs), dtype=dtype, seed=1)
    moved = evaluate(rotate_rows, r, pairs, angles)
    assert helpers.dtype_of(moved) == dtype
    w = r.T.astype("float64")
    for (j, l), phi in zip(pairs, angles):  # noqa: E741
        w = w @ oracles.givens(d, j, l, phi)
    assert_close(moved, w.T, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", (1, 6, 7))
def test_rows_and_block_agree(d, dtype, mode):
    r, pairs = normal(d, 4, dtype=dtype), some_pairs(d)
    angles = normal(len(pairs), dtype=dtype, seed=1)
    row_angles = np.zeros(d, dtype)
    row_angles[pairs[:, 0]], row_angles[pairs[:, 1]] = angles, -angles
    rows, block = evaluate(
        lambda r, pairs, angles, row_angles: (
            rotate_rows(r, pairs, angles),
            rotate_block(r, partners(pairs, d), row_angles),
        ),
        r,
        pairs,
        angles,
        row_angles,
        mode=mode,
    )
    assert_close(rows, block, {"float64": 1e-15, "float32": 3e-7}[dtype])
    idle = sorted(set(range(d)) - set(pairs.ravel()))
    assert np.array_equal(rows[idle], r[idle])
    assert np.array_equal(block[idle], r[idle])


def test_reference_values(mode):
    # math 8, transposed: G of the paper is g^T here.
    g = np.array([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]).T

    def step(r, g):
        s = skew_gradient(r, g)
        angle = -0.1 / 2 * s[0, 1]
        return angle, rotate_rows(r, [[0, 1]], angle[None])

    angle, moved = evaluate(step, np.eye(3), g.copy(), mode=mode)
    assert_close(angle, -0.15, 1e-15)
    expected = [
        [0.9887710779, 0.1494381325, 0],
        [-0.1494381325, 0.9887710779, 0],
        [0, 0, 1],
    ]
    # The table holds the columns' rotation W G(phi): rows here are columns.
    assert_close(moved, expected, 1e-10)


def test_rotation_is_the_exponential():
    """`Exp(theta eta) = W G(theta / sqrt 2)`: the printed angle is theta."""
    d, theta, r = 5, 0.7, random_orthogonal(5)
    for j, l in oracles.all_pairs(d):  # noqa: E741
        exact = r.T @ oracles.skew_expm(theta * oracles.plane(d, j, l))
        moved = evaluate(
            lambda r, a, p=(j, l): rotate_rows(r, [p], a),
            r,
            np.array([theta / np.sqrt(2)]),
        )
        assert_close(moved, exact.T, 1e-14)


def block_angles(s, partner, rate):
    """The angles of a step against the gradient: `-rate / 2 S_i,partner(i)`."""
    partner = ops.convert_to_numpy(partner)
    rows = np.arange(len(partner))
    return -rate / 2 * ops.convert_to_numpy(s)[rows, partner]


def test_block_is_one_geodesic_step():
    d, rate = 7, 0.3
    r, g = random_orthogonal(d), normal(d, d, seed=1)
    pairs = some_pairs(d)
    s = evaluate(skew_gradient, r, g)
    a = np.zeros((d, d))
    for j, l in pairs:  # noqa: E741
        a[j, l], a[l, j] = rate / 2 * s[j, l], rate / 2 * s[l, j]

    partner = partners(pairs, d)
    moved = evaluate(rotate_block, r, partner, block_angles(s, partner, rate))
    assert_close(moved, oracles.skew_expm(a) @ r, 1e-14)


@pytest.mark.parametrize("d", (4, 5))
def test_all_pairs_once_are_a_gradient_step_to_first_order(d):
    r, g = random_orthogonal(d), normal(d, d, seed=1)
    s = evaluate(skew_gradient, r, g)
    errors = []
    for rate in (2e-3, 1e-3):
        w = r
        for i in range(round_count(d)):
            partner = partners(round_robin_pairs(d, i), d)
            angles = block_angles(s, partner, rate)
            w = evaluate(rotate_block, w, partner, angles)
        step = -rate * evaluate(riemannian_gradient, r, g)
        errors.append(np.linalg.norm(w - r - step))
    assert 3.9 < errors[0] / errors[1] < 4.1


def test_determinant_and_orthogonality_are_kept(mode):
    for determinant in (-1, 1):
        r = random_orthogonal(6, determinant=determinant)
        angles = 3 * normal(3, seed=1)
        moved = evaluate(rotate_rows, r, some_pairs(6), angles, mode=mode)
        assert_close(moved @ moved.T, np.eye(6), 1e-14)
        assert_close(np.linalg.det(moved), determinant, 1e-13)


# Rounding


@pytest.mark.parametrize("scale", (1e-4, 1e-2))
def test_drift_is_noise_at_every_angle(scale):
    """`||W^T W - I||_2 ~ 1.2 u sqrt(N)` after `N` blocks (math 3.2)."""
    d, steps, rng = 32, 400, np.random.default_rng(0)
    r = ops.convert_to_tensor(random_orthogonal(d).astype("float32"))
    for i in range(steps):
        partner = partners(round_robin_pairs(d, i), d)
        angles = scale * rng.normal(size=(d, d))
        angles = block_angles(
            (angles - angles.T).astype("float32"), partner, 1.0
        )
        r = rotate_block(r, partner, angles)
    r = ops.convert_to_numpy(r).astype("float64")
    error = np.linalg.norm(r.T @ r - np.eye(d), 2)
    # Cosines that round to one add 4e-6 at the smaller angle.
    assert error <= 1.5 * 7.2e-8 * np.sqrt(steps)


def test_increments_of_small_angles_keep_their_digits(mode):
    j, l = normal(2, 3, dtype="float32")[:, None]  # noqa: E741
    angles = np.array([1e-5], "float32")
    delta_j, delta_l = evaluate(rotation_increments, j, l, angles, mode=mode)
    phi = angles[0].astype("float64")
    v = 2 * np.sin(phi / 2) ** 2
    assert_close(delta_j, np.sin(phi) * l + v * j, 3e-7)
    assert_close(delta_l, v * l - np.sin(phi) * j, 3e-7)


# Descent


@pytest.mark.parametrize("kind", ("block", "single"))
def test_descent_with_the_step_of_the_bound(kind):
    """f = ||W B - C||_F^2 / 2 and alpha = 1 / (L_e + G_e / sqrt 2)."""
    d, b, c = 6, normal(6, 6, seed=1), normal(6, 6, seed=2)
    l_e = np.linalg.norm(b, 2) ** 2
    g_e = (np.linalg.norm(b) + np.linalg.norm(c)) * np.linalg.norm(b, 2)
    rate = 1 / (l_e + g_e / np.sqrt(2))
    w = random_orthogonal(d)
    pairs_of = {
        "block": lambda s: disjoint_pairs(abs(s)),
        "single": gauss_southwell_pair,
    }[kind]
    for _ in range(30):
        g = (w @ b - c) @ b.T
        s = evaluate(skew_gradient, w.T.copy(), g.T.copy())
        pairs = evaluate(pairs_of, s)
        picked = s[pairs[:, 0], pairs[:, 1]]
        moved = evaluate(rotate_rows, w.T.copy(), pairs, -rate / 2 * picked).T
        decrease = rate / 2 * np.sum(picked**2) / 2
        before, w = w, moved
        values = [np.sum((x @ b - c) ** 2) / 2 for x in (before, w)]
        assert values[1] <= values[0] - decrease + 1e-12


def test_greedy_block_captures_its_share():
    """At least 1 / (2 (d - 1)) of the squared gradient (math 3.3)."""
    for d in (2, 5, 8, 33):
        s = normal(d, d) - normal(d, d).T
        partner = evaluate(dominant_matching, np.abs(s))
        captured = np.sum(s[np.arange(d), partner] ** 2) / np.sum(s**2)
        assert captured >= 1 / (2 * (d - 1))


# Gradients, refusals, half precision


def test_gradients_of_rotations(mode):
    r, pairs, angles = normal(5, 2), some_pairs(5), normal(2, seed=1)
    c = normal(5, 2, seed=2)
    by_r, by_angles = helpers.grad(
        lambda r, angles: inner(rotate_rows(r, pairs, angles), c),
        r,
        angles,
        mode=mode,
    )

    def value(r, angles):
        w = r.T
        for (j, l), phi in zip(pairs, angles):  # noqa: E741
            w = w @ oracles.givens(5, j, l, phi)
        return np.sum(w.T * c)

    expected = oracles.gradient(lambda r: value(r, angles), r)
    assert_close(by_r, expected, 1e-8)
    expected = oracles.gradient(lambda a: value(r, a), angles)
    assert_close(by_angles, expected, 1e-8)


def test_no_pairs_change_nothing():
    r = normal(3, 3)
    moved = evaluate(rotate_rows, r, np.zeros((0, 2), "int32"), np.zeros(0))
    assert np.array_equal(moved, r)


@pytest.mark.parametrize(
    "pairs,angles",
    [
        (np.zeros((2, 3), "int32"), np.zeros(2)),
        (np.zeros((2, 2)), np.zeros(2)),
        (np.zeros((2, 2), "int32"), np.zeros(3)),
        (np.zeros((2, 2), "int32"), np.zeros(2, "int32")),
    ],
    ids=("width", "floating", "count", "integer"),
)
def test_rotate_rows_refuses(pairs, angles):
    with pytest.raises(ValueError, match="Received"):
        rotate_rows(np.eye(4), pairs, angles)


@pytest.mark.parametrize("partner,angles", [(3, 4), (4, 3)])
def test_rotate_block_refuses(partner, angles):
    with pytest.raises(ValueError, match="one entry for each row"):
        rotate_block(np.eye(4), np.arange(partner), np.zeros(angles))


def test_half_precision_is_computed_in_float32():
    r = ops.cast(normal(4, 4), "bfloat16")
    exact = ops.convert_to_numpy(ops.cast(r, "float64"))
    expected = oracles.givens(4, 1, 3, 0.3).T @ exact
    rows = rotate_rows(r, [[1, 3]], [0.3])
    block = rotate_block(r, [0, 3, 2, 1], [0.0, 0.3, 0.0, -0.3])
    for moved in (rows, block):
        assert helpers.dtype_of(moved) == "bfloat16"
        moved = ops.convert_to_numpy(ops.cast(moved, "float64"))
        assert_close(moved, expected, 2.0**-8)
