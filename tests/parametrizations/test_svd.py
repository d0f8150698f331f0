"""SVD: the matrix of its weights, its bounds, and back from a matrix."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles
from tests.helpers import MODES
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.helpers import inner
from tests.helpers import value_and_grad
from tf_spectral.linalg.householder import upper_triangle
from tf_spectral.linalg.spectral import spectral_matrix
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


@pytest.mark.parametrize("sigma_mode", MODES_OF_SIGMA)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reflectors", [None, 1, (1, 0), (0, 1), (0, 0)])
def test_matrix_is_the_oracle_kernel(shape, reflectors, sigma_mode):
    svd = built(shape, reflectors, sigma_mode=sigma_mode, sigma_radius=0.4)
    if svd._sigma is not None:
        svd._sigma.assign(np.linspace(0.7, 1.3, min(shape)))
    assert_close(numpy_of(svd.matrix()), oracle_kernel(svd), 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_agree(shape):
    svd = built(shape, 1, sigma_radius=0.5)
    sigma, p, r = map(numpy_of, svd.diagonal_plus_low_rank())
    diagonal = np.zeros(shape)
    np.fill_diagonal(diagonal, sigma)
    assert p.shape == (shape[0], 2) and r.shape == (shape[1], 2)
    assert_close(diagonal - p @ r.T, numpy_of(svd.matrix()), 1e-13)


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
