"""Constants of recurrent networks: values, arguments and overflow."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles_recurrent as oracle
from tests.bounds import recurrent_cases as cases
from tests.helpers import assert_close
from tf_spectral.activations import SMOOTH
from tf_spectral.activations import smooth_activation
from tf_spectral.bounds import rnn_lipschitz_constants
from tf_spectral.bounds import rnn_loss_bound
from tf_spectral.bounds import rnn_trust_region

TIERS = ("vector", "tensor", "paper")
# units, inputs, classes, steps, batch: square, wide, tall, ones, many steps.
SHAPES = ((4, 4, 4, 4, 2), (3, 5, 2, 4, 3), (5, 2, 6, 3, 1), (1, 1, 1, 1, 1))
SHAPES += ((2, 2, 2, 19, 2),)

# math 8

SCALAR = {
    "input_kernel": np.array([[0.5]]),
    "recurrent_kernel": np.array([[0.8]]),
    "output_kernel": np.array([[1.0, -1.0]]),
    "initial_state": np.array([0.1]),
    "x": np.array([[[1.0], [0.5], [-1.0]]]),
}
LABELS = np.array([[0, 1, 0]])
REFERENCES = [
    ({"tier": "tensor"}, 2.4817972842, 1.2951243428),
    ({"tier": "vector"}, None, 1.2951243428),
    ({"tier": "tensor", "residual": True}, 1.5622308720, 0.8785041585),
    ({"tier": "vector", "residual": True}, None, 0.8785041585),
    ({"tier": "paper"}, 2 * 0.7715861763, 2 * 0.5504711598),
    ({"tier": "global", "radius": 0.1}, 7.2329644942, 6.6005374855),
]


@pytest.mark.parametrize("options, l_u, l_w", REFERENCES, ids=str)
def test_reference_values(options, l_u, l_w):
    actual = rnn_lipschitz_constants(**SCALAR, **options, y=LABELS)
    # The norm of the recurrent kernel is a bound, 1e-6 too large.
    tolerance = 3e-6 if options["tier"] == "global" else 1e-9
    if l_u is not None:
        assert_close(float(actual["input"]), l_u, tolerance)
    assert_close(float(actual["recurrent"]), l_w, tolerance)
    assert_close(float(actual["output"]), 0.2050104742, 1e-9)
    assert float(actual["output_bias"]) == 1.0


def test_reference_loss():
    loss = rnn_loss_bound(**SCALAR, y=LABELS, steps={})
    assert_close(float(loss), 0.8221166845, 1e-9)


# Against the oracle


def check(shape, mode, seed=0, f="tanh", outputs="all", tolerance=1e-10, **o):
    weights, x, y = cases.random_network(shape, seed)
    labels = y[:, -1] if outputs == "last" else y
    function = cases.constants_function(
        mode, activation=f, outputs=outputs, **o
    )
    actual = function(weights, x, labels)
    nets = cases.oracles(weights, x, y, f, outputs)
    expected = cases.mean(
        [oracle.local(n, o["tier"], o.get("residual", False)) for n in nets]
    )
    assert set(actual) == set(o.get("weights", expected))
    for name in actual:
        assert_close(actual[name], expected[name], tolerance)


@pytest.mark.parametrize("tier", TIERS)
def test_equal_to_the_oracle(tier, mode):
    # XLA takes seconds to compile a singular value decomposition.
    weights = {} if tier == "vector" else {"weights": ("recurrent", "bias")}
    check((3, 2, 4, 5, 2), mode, tier=tier, **weights)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, tier):
    check(shape, helpers.MODES[0], tier=tier)


@pytest.mark.parametrize("tier", TIERS)
def test_only_the_last_output(tier):
    check((3, 2, 4, 5, 2), cases.FAST, outputs="last", tier=tier)


@pytest.mark.parametrize("outputs", ("all", "last"))
@pytest.mark.parametrize("tier", ("vector", "tensor"))
def test_residual_form(tier, outputs):
    shape = (3, 2, 4, 5, 2)
    check(shape, cases.FAST, outputs=outputs, tier=tier, residual=True)


@pytest.mark.parametrize("f", ("sigmoid", "softplus", "gelu", "silu", "erf"))
def test_activations(f):
    check((3, 2, 4, 4, 2), cases.FAST, f=f, tier="vector")


@pytest.mark.parametrize("f", SMOOTH)
def test_derivatives_of_activations(f):
    z = np.linspace(-6, 6, 101)
    activation = smooth_activation(f)
    s = activation.function(ops.convert_to_tensor(z))
    parts = oracle.PARTS[f]
    assert_close(ops.convert_to_numpy(s), parts[0](z), 1e-9)
    for i, part in enumerate((activation.slope, activation.curvature), 1):
        actual = ops.convert_to_numpy(part(ops.convert_to_tensor(z), s))
        assert_close(actual, parts[i](z), 1e-9)
        bound = (activation.bounds.slope, activation.bounds.curvature)[i - 1]
        assert np.abs(actual).max() <= bound * (1 + 1e-12)


@pytest.mark.parametrize("f", ("tanh", "sigmoid", "softplus"))
@pytest.mark.parametrize("outputs", ("all", "last"))
def test_global_tier(f, outputs):
    weights, x, y = cases.random_network((4, 3, 5, 6, 2), 0)
    function = cases.constants_function(
        activation=f, outputs=outputs, tier="global", radius=0.3
    )
    actual = function(weights, x, y)
    nets = cases.oracles(weights, x, y, f, outputs)
    least = cases.mean([oracle.rigorous(n, 0.3) for n in nets])
    # The norm of the kernel is bounded from above, by so much.
    most = cases.mean([oracle.rigorous(n, 0.3, stretch=1 + 3e-6) for n in nets])
    for name in oracle.BLOCKS:
        assert least[name] * (1 - 1e-12) <= actual[name] <= most[name]


def test_global_tier_in_every_mode(mode):
    weights, x, y = cases.random_network((4, 3, 5, 6, 2), 0)
    actual = cases.constants_function(mode, tier="global")(weights, x, y)
    eager = rnn_lipschitz_constants(
        **cases.arguments(weights), x=x, tier="global"
    )
    for name, value in eager.items():
        assert_close(actual[name], float(value), 1e-9)


def test_float32_and_half():
    weights, x, _ = cases.random_network((4, 3, 5, 6, 2), 0)
    wide = rnn_lipschitz_constants(**cases.arguments(weights), x=x)
    for dtype, tolerance in (("float32", 1e-5), ("float16", 2e-2)):
        narrow = {
            name: ops.cast(value, dtype)
            for name, value in cases.arguments(weights).items()
        }
        for name, value in rnn_lipschitz_constants(**narrow, x=x).items():
            assert helpers.dtype_of(value) == "float32"
            assert_close(float(value), float(wide[name]), tolerance)


def test_states_for_each_sequence_and_labels_as_probabilities():
    weights, x, y = cases.random_network((3, 2, 4, 5, 2), 0)
    states = np.random.default_rng(1).normal(size=(2, 3))
    given = cases.arguments(weights) | {"initial_state": states}
    actual = rnn_lipschitz_constants(
        **given, x=x, y=np.eye(4)[y], residual=True
    )
    for name, value in actual.items():
        each = [
            oracle.local(
                cases.oracles(
                    weights | {"initial_state": states[i]},
                    x[i : i + 1],
                    y[i : i + 1],
                )[0],
                "vector",
                True,
            )[name]
            for i in range(2)
        ]
        assert_close(float(value), np.mean(each), 1e-10)


@pytest.mark.parametrize("tier", (*TIERS, "global"))
def test_wanted_weights(tier):
    weights, x, _ = cases.random_network((3, 2, 4, 5, 2), 0)
    given = cases.arguments(weights)
    every = rnn_lipschitz_constants(**given, x=x, tier=tier)
    for names in (("bias",), ("recurrent", "input"), ("output",)):
        some = rnn_lipschitz_constants(**given, x=x, tier=tier, weights=names)
        assert set(some) == set(names)
        for name in names:
            assert_close(float(some[name]), float(every[name]), 1e-12)


# Saturation and overflow


@pytest.mark.parametrize("tier", (*TIERS, "global"))
@pytest.mark.parametrize("f", ("tanh", "sigmoid", "silu", "gelu", "erf"))
def test_saturated_units_have_no_nan(tier, f):
    weights, x, _ = cases.random_network((3, 2, 4, 5, 2), 0)
    weights["bias"] = np.array([1e4, -1e4, 0.0])
    actual = rnn_lipschitz_constants(
        **cases.arguments(weights), x=x, tier=tier, activation=f
    )
    for value in actual.values():
        assert 0 <= float(value) < np.inf


@pytest.mark.parametrize("tier", ("vector", "tensor", "global"))
@pytest.mark.parametrize("f", ("linear", "silu"))
def test_overflow_is_infinite(tier, f):
    steps = 1000 if tier != "tensor" else 40
    weights, x, y = cases.random_network((3, 2, 4, steps, 2), 0)
    # Zeros beside large entries: `inf * 0`, also where x is zero.
    weights["recurrent"] = np.diag([1e9, 1e9, 0.0])
    x[1] = 0
    function = cases.constants_function(activation=f, tier=tier)
    weights = {name: w.astype("float32") for name, w in weights.items()}
    actual = function(weights, x.astype("float32"), y)
    for name, value in actual.items():
        assert not np.isnan(value), name
    for name in ("input", "recurrent", "bias"):
        assert actual[name] == np.inf


def test_trust_region_of_an_infinite_constant_is_zero():
    weights, x, _ = cases.random_network((3, 2, 4, 100, 1), 0)
    given = cases.arguments(weights)
    del given["output_bias"]
    given["recurrent_kernel"] = 1e9 * given["recurrent_kernel"]
    assert float(rnn_trust_region(**given, x=x, gradient_norm=1.0)) == 0.0
    given = {n: 0 * v for n, v in given.items()}
    radius = rnn_trust_region(**given, x=x, gradient_norm=0.0)
    assert float(radius) == 0.0


# Bad input

BAD = [
    ({"activation": "relu"}, "tanh.*relu"),
    ({"activation": "leaky_relu"}, "tanh.*leaky_relu"),
    ({"activation": keras.activations.relu}, "tanh.*relu"),
    ({"activation": "softsign"}, "two continuous"),
    ({"activation": lambda z: z}, "two continuous"),
    ({"activation": ops.gelu}, "two continuous"),
    ({"tier": "spectral"}, "`tier` must be one of"),
    ({"outputs": "first"}, "`outputs` must be one of"),
    ({"residual": True}, "`y` is missing"),
    ({"residual": True, "y": np.zeros((2, 3))}, "`y` has the wrong shape"),
    ({"residual": True, "tier": "global", "y": 0}, "`residual`"),
    ({"radius": 0.1}, "`radius` belongs"),
    ({"radius": -0.1, "tier": "global"}, "`radius` must be a non-negative"),
    ({"radius": [0.1], "tier": "global"}, "`radius` has the wrong shape"),
    ({"weights": ("kernel",)}, "`weights` must be names"),
    ({"weights": ()}, "`weights` must be names"),
    ({"x": np.zeros((2, 3))}, "`x` has the wrong shape"),
    ({"x": np.zeros((2, 5, 3))}, "`x` has the wrong shape"),
    ({"x": np.zeros((2, 0, 2))}, "`x` must have a sequence"),
    ({"input_kernel": np.zeros((2, 4))}, "`input_kernel`"),
    ({"recurrent_kernel": np.zeros((3, 4))}, "`recurrent_kernel`"),
    ({"recurrent_kernel": np.zeros((3, 3), "int32")}, "floating"),
    ({"output_kernel": np.zeros((4, 3))}, "`output_kernel`"),
    ({"bias": np.zeros(4)}, "`bias`"),
    ({"output_bias": np.zeros(3)}, "`output_bias`"),
    ({"initial_state": np.zeros(2)}, "`initial_state`"),
    ({"initial_state": np.zeros((3, 3))}, "`initial_state`"),
]


@pytest.mark.parametrize("bad, message", BAD, ids=[m for _, m in BAD])
def test_bad_input(bad, message):
    weights, x, _ = cases.random_network((3, 2, 4, 5, 2), 0)
    given = {**cases.arguments(weights), "x": x, **bad}
    with pytest.raises(ValueError, match=message):
        rnn_lipschitz_constants(**given)


@pytest.mark.parametrize("tier", ("tensor", "paper"))
def test_tensors_of_many_units_are_refused(tier):
    weights, x, _ = cases.random_network((65, 2, 4, 5, 2), 0)
    with pytest.raises(ValueError, match="at most 64.*tier='vector'"):
        rnn_lipschitz_constants(**cases.arguments(weights), x=x, tier=tier)


def test_bad_input_of_the_other_functions():
    weights, x, y = cases.random_network((3, 2, 4, 5, 2), 0)
    given = cases.arguments(weights)
    with pytest.raises(ValueError, match="unknown weights"):
        rnn_loss_bound(**given, x=x, y=y, steps={"kernel": 0.0})
    with pytest.raises(ValueError, match="steps.'input'"):
        rnn_loss_bound(**given, x=x, y=y, steps={"input": np.zeros(3)})
    with pytest.raises(ValueError, match="`y` is missing"):
        rnn_loss_bound(**given, x=x, y=None, steps={})
    del given["output_bias"]
    with pytest.raises(
        ValueError, match="`gradient_norm` must be a non-negative"
    ):
        rnn_trust_region(**given, x=x, gradient_norm=-1.0)
    with pytest.raises(ValueError, match="`outputs` must be one of"):
        rnn_trust_region(**given, x=x, gradient_norm=1.0, outputs=None)
