"""The public functions of recurrent networks: values and arguments."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles_recurrent as oracle
from tests.bounds import recurrent_cases as cases
from tests.helpers import assert_close
from tf_spectral.bounds import rnn_lipschitz_constants
from tf_spectral.bounds import rnn_loss_bound
from tf_spectral.bounds import rnn_trust_region

TIERS = ("vector", "tensor", "paper", "global")
SHAPE = (3, 2, 4, 3, 2)
WEIGHTS = tuple(cases.ARGUMENTS.values())

# Values of math 8.

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


def test_reference_values():
    for options, l_u, l_w in REFERENCES:
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


# Options of the constants.


def test_float32_and_half():
    weights, x, _ = cases.random_network((4, 3, 5, 6, 2), 0)
    wide = cases.constants(weights, x)
    for dtype, tolerance in (("float32", 1e-5), ("float16", 2e-2)):
        narrow = {
            name: ops.cast(value, dtype)
            for name, value in cases.arguments(weights).items()
        }
        for name, value in rnn_lipschitz_constants(**narrow, x=x).items():
            assert helpers.dtype_of(value) == "float32"
            assert_close(float(value), wide[name], tolerance)


def test_states_for_each_sequence_and_labels_as_probabilities():
    weights, x, y = cases.random_network(SHAPE, 0)
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


@pytest.mark.parametrize("tier", TIERS)
def test_wanted_weights(tier):
    weights, x, _ = cases.random_network(SHAPE, 0)
    every = cases.constants(weights, x, tier=tier)
    for names in (("bias",), ("recurrent", "input"), ("output",)):
        some = cases.constants(weights, x, tier=tier, weights=names)
        assert set(some) == set(names)
        for name in names:
            assert_close(some[name], every[name], 1e-12)


# The bound of the loss.


@pytest.mark.parametrize("outputs", ("all", "last"))
def test_loss_bound(outputs):
    for name in WEIGHTS:
        for seed, size in enumerate((1e-2, 1.0, 30.0)):
            weights, x, y = cases.random_network((3, 2, 4, 5, 2), seed)
            rng = np.random.default_rng(seed)
            step = size * oracle.polar(rng.normal(size=weights[name].shape))
            labels = y[:, -1] if outputs == "last" else y
            actual = rnn_loss_bound(
                **cases.arguments(weights),
                x=x,
                y=labels,
                steps={name: step},
                outputs=outputs,
            )
            nets = cases.oracles(weights, x, y, outputs=outputs)
            moved = cases.move(weights, name, step)
            moved = cases.oracles(moved, x, y, outputs=outputs)
            expected = [
                oracle.loss_bound(n, m, name) for n, m in zip(nets, moved)
            ]
            assert_close(float(actual), np.mean(expected), 1e-10)
            assert cases.loss(moved) <= float(actual) + 1e-12


def test_loss_bound_of_joint_steps_in_every_mode(mode):
    weights, x, y = cases.random_network((3, 2, 4, 3, 2), 0)
    rng = np.random.default_rng(1)
    steps = {n: rng.normal(size=w.shape) for n, w in weights.items()}
    moved = {n: w + steps[n] for n, w in weights.items()}

    def bound(x, y):
        return rnn_loss_bound(**cases.arguments(weights), x=x, y=y, steps=steps)

    actual = float(helpers.evaluate(bound, x, y, mode=mode))
    assert cases.loss(cases.oracles(moved, x, y)) <= actual
    assert_close(actual, float(bound(x, y)), 1e-12)


# The trust region.


def check_trust_region(mode, outputs, *sizes):
    """The radius is the root of `R L_W(R) = size`, from below."""
    # XLA takes longer to compile more steps.
    weights, x, _ = cases.random_network((4, 3, 5, 3, 2), 0)
    given = cases.arguments(weights)
    del given["output_bias"]

    def region(x, size):
        return rnn_trust_region(
            **given, x=x, gradient_norm=size, outputs=outputs
        )

    compiled = helpers._compile(region, mode)
    for size in sizes:
        tensors = [ops.convert_to_tensor(np.asarray(a)) for a in (x, size)]
        radius = float(compiled(*tensors))
        constants = cases.constants(
            weights, x, radius=radius, tier="global", outputs=outputs
        )
        assert_close(radius * constants["recurrent"], size, 1e-9)
        assert radius * constants["recurrent"] <= size * (1 + 1e-12)


def test_trust_region_is_the_root_in_every_mode(mode):
    check_trust_region(mode, "all", 1e-3, 1.0)


def test_trust_region_of_the_last_output():
    check_trust_region(helpers.MODES[0], "last", 0.1)


@pytest.mark.parametrize("mode", cases.MODES_IN_TIME)
def test_default_radius_in_every_mode(mode):
    weights, x, y = cases.random_network((4, 3, 5, 3, 2), 0)
    (actual,) = cases.compiled({"tier": "global"}, mode=mode)(weights, x, y)
    for name, value in cases.constants(weights, x, tier="global").items():
        assert_close(actual[name], value, 1e-9)


def test_trust_region_of_an_infinite_constant_is_zero():
    weights, x, _ = cases.random_network((3, 2, 4, 50, 1), 0)
    given = cases.arguments(weights)
    del given["output_bias"]
    given["recurrent_kernel"] = 1e9 * given["recurrent_kernel"]
    assert float(rnn_trust_region(**given, x=x, gradient_norm=1.0)) == 0.0
    given = {n: 0 * v for n, v in given.items()}
    radius = rnn_trust_region(**given, x=x[:, :3], gradient_norm=0.0)
    assert float(radius) == 0.0


# Bad input.

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


def test_bad_input():
    weights, x, _ = cases.random_network((3, 2, 4, 5, 2), 0)
    for bad, message in BAD:
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
