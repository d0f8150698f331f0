"""SVD: its matrix, its bounds, its by-products, and back from a matrix."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles
from tests.helpers import MODES
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import grad
from tests.helpers import inner
from tests.helpers import value_and_grad
from tf_spectral.linalg.householder import upper_triangle
from tf_spectral.linalg.spectral import spectral_matrix
from tf_spectral.linalg.spectral import times_diagonal_plus_low_rank
from tf_spectral.parametrizations import SVD
from tf_spectral.parametrizations.singular_values import sigma_from_weight

MODES_OF_SIGMA = ("sigmoid", "clip", "free", "fixed")
SHAPES = [(1, 1), (5, 5), (6, 3), (3, 6), (1, 4), (4, 1)]


def built(shape, reflectors=None, **kwargs):
    svd = SVD(shape, reflectors=reflectors, dtype="float64", **kwargs)
    svd.build()
    return svd


def numpy_of(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def oracle_kernel(svd):
    """The kernel by loops over reflectors, from the raw weights."""
    u, v = numpy_of(svd.u_vectors()), numpy_of(svd.v_vectors())
    return oracles.spectral_kernel(u, numpy_of(svd.sigma()), v)


@pytest.mark.parametrize("shape", SHAPES)
def test_matrix_is_the_oracle_kernel(shape):
    """Every number of reflectors with every mode of sigma."""
    for reflectors in (None, 1, (1, 0), (0, 1), (0, 0)):
        for sigma_mode in MODES_OF_SIGMA:
            svd = built(
                shape, reflectors, sigma_mode=sigma_mode, sigma_radius=0.4
            )
            if svd._sigma is not None:
                svd._sigma.assign(np.linspace(0.7, 1.3, min(shape)))
            assert_close(numpy_of(svd.matrix()), oracle_kernel(svd), 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_agree(shape):
    svd = built(shape, 1, sigma_radius=0.5)
    sigma, p, q = map(numpy_of, svd.diagonal_plus_low_rank())
    diagonal = np.zeros(shape)
    np.fill_diagonal(diagonal, sigma)
    assert p.shape == (shape[0], 2) and q.shape == (shape[1], 2)
    assert_close(diagonal - p @ q.T, numpy_of(svd.matrix()), 1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma_mode", ["sigmoid", "free"])
def test_singular_values_are_those_of_the_matrix(shape, sigma_mode):
    svd = built(shape, sigma_mode=sigma_mode, sigma_radius=0.5)
    svd._sigma.assign(np.random.default_rng(0).normal(size=min(shape)))
    computed = np.linalg.svd(numpy_of(svd.matrix()), compute_uv=False)
    assert_close(
        computed, np.sort(numpy_of(svd.singular_values()))[::-1], 1e-12
    )


def test_sigmoid_keeps_its_bounds_for_any_logits():
    svd = built((4, 4), sigma_center=0.8, sigma_radius=0.3)
    svd._sigma.assign([-1e4, -1.0, 1.0, 1e4])
    sigma = numpy_of(svd.sigma())
    assert (sigma >= 0.5 - 1e-15).all() and (sigma <= 1.1 + 1e-15).all()
    # c + r tanh(s / 2), math.md 2.8.
    assert_close(sigma[2], 0.8 + 0.3 * np.tanh(0.5), 1e-15)


def test_clip_constrains_after_an_update():
    svd = built((3, 3), sigma_mode="clip", sigma_radius=0.1)
    wide = np.array([0.0, 1.0, 2.0])
    clipped = numpy_of(svd._sigma.constraint(wide))
    # Keras computes `clip` in float32 on PyTorch.
    assert_close(clipped, [0.9, 1.0, 1.1], 1e-7)


def test_fixed_mode_has_no_weight_for_sigma():
    svd = built((3, 3), sigma_mode="fixed", sigma_center=0.5)
    assert len(svd.weights) == 2
    assert_close(numpy_of(svd.singular_values()), [0.5] * 3, 1e-15)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_by_finite_differences(mode):
    svd = built((4, 3), (2, 3), sigma_radius=0.5)
    cotangent = np.random.default_rng(1).normal(size=(4, 3))
    start = [numpy_of(v) for v in (svd._u, svd._v, svd._sigma)]
    start[2] = np.array([0.3, -0.2, 0.1])

    def loss(u, v, s):
        sigma = sigma_from_weight(s, "sigmoid", 1.0, 0.5)
        return inner(
            spectral_matrix(upper_triangle(u), sigma, upper_triangle(v)),
            cotangent,
        )

    _, gradients = value_and_grad(loss, *start, mode=mode)
    for k, gradient in enumerate(gradients):

        def along(x, k=k):
            weights = [*start[:k], x, *start[k + 1 :]]
            u, v, s = np.triu(weights[0]), np.triu(weights[1]), weights[2]
            sigma = 1.0 + 0.5 * np.tanh(s / 2)
            return np.sum(oracles.spectral_kernel(u, sigma, v) * cotangent)

        assert_close(gradient, oracles.finite_difference(along, start[k]), 1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_matrix_in_every_mode(mode):
    svd = built((5, 4), 2)
    assert_close(evaluate(svd.matrix, mode=mode), oracle_kernel(svd), 1e-12)


MATRICES = {
    "square": np.random.default_rng(0).normal(size=(5, 5)),
    "wide": np.random.default_rng(1).normal(size=(3, 6)),
    "tall": np.random.default_rng(2).normal(size=(6, 3)),
    "scalar": np.array([[-2.5]]),
    "identity": np.eye(4),
    "minus identity": -np.eye(4),
    "zero": np.zeros((3, 3)),
    "rank one": np.outer([1.0, 2.0, 3.0], [1.0, -1.0]),
    "negative diagonal": np.diag([3.0, -2.0, 1.0]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_assigned_matrix_comes_back(name):
    kernel = MATRICES[name]
    svd = built(kernel.shape, sigma_mode="free")
    svd.assign_matrix(kernel)
    assert_close(numpy_of(svd.matrix()), kernel, 1e-12)
    assert (numpy_of(svd.sigma()) >= 0).all()


@pytest.mark.parametrize("sigma_mode", ["sigmoid", "clip"])
def test_assigned_matrix_within_bounds_comes_back(sigma_mode):
    source = built((5, 5), sigma_radius=0.2)
    source._sigma.assign(np.linspace(-2, 2, 5))
    svd = built((5, 5), sigma_mode=sigma_mode, sigma_radius=0.2)
    svd.assign_matrix(source.matrix())
    assert_close(numpy_of(svd.matrix()), numpy_of(source.matrix()), 1e-6)


def test_assigned_reflectors_keep_the_scale_of_the_initializer():
    svd = built((6, 6), sigma_mode="free")
    svd.assign_matrix(MATRICES["square"][:1, :1] * np.eye(6) + np.ones((6, 6)))
    rows = numpy_of(svd.u_vectors())[:-1]
    length = np.sqrt(6 - np.arange(5))
    assert_close(np.linalg.norm(rows, axis=1), length, 1e-12)


@pytest.mark.parametrize(
    "kernel, options, message",
    [
        (np.ones((2, 3)), {}, "kernel"),
        (np.diag([1.0, 5.0, 1.0]), {}, "singular values"),
        (np.diag([1.0, 5.0, 1.0]), {"sigma_mode": "clip"}, "singular values"),
        (np.diag([1.0, 1.2, 1.0]), {"sigma_mode": "fixed"}, "singular values"),
        (MATRICES["square"][:3, :3], {"reflectors": 1}, "reflectors"),
        (np.full((3, 3), np.nan), {}, "finite"),
    ],
)
def test_refused_matrix_leaves_the_weights(kernel, options, message):
    svd = built((3, 3), **options)
    before = [numpy_of(w).copy() for w in svd.weights]
    with pytest.raises(ValueError, match=message):
        svd.assign_matrix(kernel)
    for weight, value in zip(svd.weights, before):
        assert np.array_equal(numpy_of(weight), value)


def test_penalties_act_on_sigma_and_on_the_matrix():
    svd = SVD(
        (3, 2),
        sigma_mode="free",
        sigma_regularizer=keras.regularizers.L1(0.5),
        matrix_regularizer=keras.regularizers.L2(2.0),
    )
    svd.build()
    svd._sigma.assign([1.5, -0.5])
    losses = sorted(float(x) for x in svd.losses)
    # |1.5| + |-0.5|, halved; and the squares, which are those of the matrix.
    assert_close(losses, [1.0, 2.0 * (1.5**2 + 0.5**2)], 1e-6)


def test_config_round_trip():
    svd = built(
        (4, 3),
        (2, 1),
        sigma_center=0.9,
        sigma_radius=0.2,
        sigma_mode="clip",
        reflector_initializer="haar",
        matrix_regularizer="l2",
    )
    copy = SVD.from_config(svd.get_config())
    assert copy.get_config() == svd.get_config()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_weights_and_matrix_stay_float32(policy):
    svd = SVD((4, 4), dtype=policy)
    assert keras.backend.standardize_dtype(svd.matrix().dtype) == "float32"
    assert {w.dtype for w in svd.weights} == {"float32"}


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"shape": (3, 0)}, "shape"),
        ({"shape": 3}, "shape"),
        ({"shape": (3, 2.0)}, "shape"),
        ({"reflectors": 4}, "reflectors"),
        ({"reflectors": -1}, "reflectors"),
        ({"reflectors": 1.5}, "reflectors"),
        ({"reflectors": True}, "reflectors"),
        ({"reflectors": (1, 2, 3)}, "reflectors"),
        ({"sigma_radius": 0.0}, "sigma_radius"),
        ({"sigma_radius": -0.1}, "sigma_radius"),
        ({"sigma_radius": 1.0}, "sigma_radius"),
        ({"sigma_radius": float("nan")}, "sigma_radius"),
        ({"sigma_center": -1.0}, "sigma_center"),
        ({"sigma_mode": "tanh"}, "sigma_mode"),
        ({"reflector_initializer": "zeros"}, "reflector_initializer"),
        (
            {"sigma_mode": "fixed", "sigma_regularizer": "l2"},
            "sigma_regularizer",
        ),
        (
            {"reflectors": (0, 1), "matrix_regularizer": "l2"},
            "matrix_regularizer",
        ),
    ],
)
def test_refuses(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        SVD(**{"shape": (3, 3), **arguments})


def test_center_zero_gives_up_invertibility_and_takes_any_radius():
    svd = built((3, 3), sigma_center=0.0, sigma_radius=0.1)
    assert_close(numpy_of(svd.matrix()), np.zeros((3, 3)), 1e-15)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def signed(shape, reflectors=None, dtype="float64"):
    """Singular values from 0.5 to 1.5, one of them repeated."""
    svd = SVD(shape, reflectors, sigma_mode="free", dtype=dtype)
    svd.build()
    sigma = np.linspace(0.5, 1.5, min(shape))
    sigma[-1:] = sigma[len(sigma) // 2]
    # Entries may be negative: the singular values are their sizes.
    svd._sigma.assign(sigma * (-1.0) ** np.arange(min(shape)))
    return svd


def matrix_of(svd):
    return np.asarray(ops.convert_to_numpy(svd.matrix()), "float64")


@pytest.mark.parametrize("n,reflectors", [(1, None), (6, None), (6, (1, 3))])
def test_solves(n, reflectors, mode):
    svd = signed((n, n), reflectors)
    x = normal(4, n)
    y = x @ matrix_of(svd)
    assert_close(evaluate(svd.solve, y, mode=mode), x, 1e-12)


def test_solves_rows_of_any_rank():
    svd = signed((5, 5))
    for shape in ((5,), (2, 3, 5)):
        x = normal(*shape)
        assert_close(evaluate(svd.solve, x @ matrix_of(svd)), x, 1e-12)


def test_gradient_of_a_solution():
    svd = signed((4, 4))
    y, cotangent = normal(3, 4), normal(3, 4, seed=1)
    actual = grad(lambda y: inner(svd.solve(y), cotangent), y)
    assert_close(actual, cotangent @ np.linalg.inv(matrix_of(svd)).T, 1e-12)


def test_solves_in_float32_as_well_as_the_condition_allows():
    svd = signed((64, 64), dtype="float32")
    x = normal(8, 64).astype("float32")
    y = ops.convert_to_tensor((x @ matrix_of(svd)).astype("float32"))
    assert_close(evaluate(svd.solve, y), x, 1e-5)
    half = ops.cast(y, "bfloat16")
    assert "bfloat16" in str(svd.solve(half).dtype)


@pytest.mark.parametrize("n", (1, 2, 5))
def test_determinant(n):
    svd = signed((n, n))
    _, expected = np.linalg.slogdet(matrix_of(svd))
    assert_close(evaluate(svd.log_abs_det), expected, 1e-12, 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 5), (5, 2)])
def test_condition_number(shape):
    svd = signed(shape)
    expected = np.linalg.cond(matrix_of(svd))
    assert_close(evaluate(svd.condition_number), expected, 1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 6), (6, 3)])
def test_truncated_matrix_is_the_nearest(shape):
    """Eckart and Young: the error is that of the values left out."""
    svd = signed(shape)
    matrix = matrix_of(svd)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    for rank in range(min(shape) + 1):
        low = evaluate(lambda k=rank: svd.truncated_matrix(k))
        assert np.linalg.matrix_rank(low, tol=1e-10) == rank
        error = np.linalg.norm(matrix - low)
        assert_close(error, np.sqrt(np.sum(sigma[rank:] ** 2)), 1e-12, 1.0)


def test_truncates_in_every_mode(mode):
    svd = signed((3, 4))
    expected = evaluate(lambda: svd.truncated_matrix(2))
    actual = evaluate(lambda: svd.truncated_matrix(2), mode=mode)
    assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 6), (6, 3)])
@pytest.mark.parametrize("reflectors", [(1, 1), (0, 1), (0, 0)])
def test_times_diagonal_plus_low_rank(shape, reflectors):
    svd = signed(shape, reflectors)
    x = normal(5, shape[0])

    def product(x):
        terms = svd.diagonal_plus_low_rank()
        return times_diagonal_plus_low_rank(x, *terms)

    actual = evaluate(product, x)
    assert_close(actual, x @ matrix_of(svd), 1e-12)


def test_by_products_refuse():
    wide, square = signed((2, 3)), signed((3, 3))
    for refused in (wide.log_abs_det, lambda: wide.solve(normal(1, 3))):
        with pytest.raises(ValueError, match="square.*Received"):
            refused()
    with pytest.raises(ValueError, match="`y`.*Received"):
        square.solve(normal(1, 4))
    with pytest.raises(ValueError, match="`y`.*Received"):
        square.solve(np.ones((1, 3), "int32"))
    for rank in (-1, 4, 1.0, True):
        with pytest.raises(ValueError, match="`rank`.*Received"):
            square.truncated_matrix(rank)


def test_condition_number_of_nothing_is_infinite():
    svd = SVD((3, 3), sigma_center=0.0, sigma_radius=0.1)
    assert np.isinf(float(svd.condition_number()))


def relative(kernel, svd):
    error = np.linalg.norm(kernel - numpy_of(svd.matrix()))
    return error / np.linalg.norm(kernel)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 6), (6, 3)])
def test_residual_of_an_exact_assignment_is_rounding(shape):
    svd = SVD(shape, sigma_mode="free", dtype="float64")
    assert svd.assign_matrix(normal(*shape)) < 1e-12


def test_fit_within_narrow_bounds_is_the_nearest():
    """Mirsky: no matrix with sigma in the bounds is closer than this one."""
    kernel = normal(5, 4)
    svd = SVD((5, 4), sigma_radius=0.25, sigma_mode="clip", dtype="float64")
    residual = svd.assign_matrix(kernel, exact=False)
    sigma = np.linalg.svd(kernel, compute_uv=False)
    nearest = np.linalg.norm(sigma - np.clip(sigma, 0.75, 1.25))
    assert_close(residual, nearest / np.linalg.norm(kernel), 1e-6)
    assert_close(relative(kernel, svd), residual, 1e-6)


@pytest.mark.parametrize("sigma_mode", ["sigmoid", "clip", "free", "fixed"])
def test_fit_with_few_reflectors(sigma_mode):
    kernel = normal(6, 6)
    svd = SVD((6, 6), 2, 1.0, 0.5, sigma_mode, dtype="float64")
    residual = svd.assign_matrix(kernel, exact=False)
    assert 0.01 < residual < 1.5
    assert_close(relative(kernel, svd), residual, 1e-6)


def test_a_sigmoid_is_left_room_to_move():
    svd = SVD((3, 3), sigma_radius=0.5, dtype="float64")
    svd.assign_matrix(np.diag([0.0, 1.2, 9.0]), exact=False)
    sigma = np.sort(ops.convert_to_numpy(svd.sigma()))
    assert_close(sigma, [0.505, 1.2, 1.495], 1e-9)


def test_residual_of_a_zero_matrix_is_absolute():
    svd = SVD((3, 3), sigma_radius=0.5, sigma_mode="clip", dtype="float64")
    # All three singular values stop at 0.5.
    residual = svd.assign_matrix(np.zeros((3, 3)), exact=False)
    assert_close(residual, 0.5 * np.sqrt(3), 1e-5)


def test_error_says_which_bounds_would_do():
    svd = SVD((3, 3), sigma_radius=0.1)
    kernel = np.diag([0.5, 1.0, 1.2]).astype("float32")
    with pytest.raises(ValueError, match="2 of 3 outside") as error:
        svd.assign_matrix(kernel)
    words = str(error.value).replace(",", "").replace("=", " ").split()
    center, radius = (
        float(words[words.index(name) + 1])
        for name in ("sigma_center", "sigma_radius")
    )
    wide = SVD((3, 3), sigma_center=center, sigma_radius=radius)
    assert wide.assign_matrix(kernel) < 1e-5
