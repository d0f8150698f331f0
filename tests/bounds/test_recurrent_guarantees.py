"""What the constants of recurrent networks promise, on random networks."""

import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles_recurrent as oracle
from tests.bounds import recurrent_cases as cases
from tests.helpers import assert_close
from tf_spectral.bounds import rnn_loss_bound
from tf_spectral.bounds import rnn_trust_region

# units, inputs, classes, steps, batch.
SHAPES = ((2, 3, 3, 5, 1), (4, 2, 5, 4, 1), (6, 3, 4, 3, 1))
NETWORKS = 26
KERNELS = ("input", "recurrent", "output")
NAMES = (*KERNELS, "bias", "initial_state", "output_bias")


def scale_of(seed):
    return (0.3, 1.0, 2.0)[seed % 3]


def gradients(nets, names):
    return {
        n: np.mean([net.derivatives(n)[0] for net in nets], 0) for n in names
    }


def loss(nets):
    return np.mean([net.loss() for net in nets])


# The oracle itself


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("f", ("tanh", "sigmoid", "gelu"))
def test_oracle_derivatives_are_finite_differences(name, f):
    weights, x, y = cases.random_network((3, 2, 4, 4, 1), 0)
    (net,) = cases.oracles(weights, x, y, f)
    gradient, hessian = net.derivatives(name)
    direction = np.random.default_rng(1).normal(size=gradient.shape)
    values = [
        loss(cases.oracles(move(weights, name, h * direction), x, y, f))
        for h in (-1e-3, 0, 1e-3)
    ]
    slope = (values[2] - values[0]) / 2e-3
    bend = (values[2] - 2 * values[1] + values[0]) / 1e-6
    assert_close(np.sum(gradient * direction), slope, 1e-4, scale=1.0)
    flat = direction.ravel()
    assert_close(flat @ hessian @ flat, bend, 1e-4, scale=1 + abs(bend))


def move(weights, name, step):
    return weights | {name: weights[name] + step}


# Local tiers


@pytest.mark.parametrize("residual", (False, True))
@pytest.mark.parametrize("f", ("tanh", "sigmoid"))
def test_no_curvature_above_the_local_constants(f, residual):
    rng = np.random.default_rng(0)
    worst = 0.0
    for shape in SHAPES:
        vector, tensor = (
            cases.constants_function(activation=f, tier=tier, residual=residual)
            for tier in ("vector", "tensor")
        )
        for seed in range(NETWORKS):
            weights, x, y = cases.random_network(shape, seed, scale_of(seed))
            (net,) = cases.oracles(weights, x, y, f)
            cheap, sharp = vector(weights, x, y), tensor(weights, x, y)
            for name in NAMES:
                assert cheap[name] >= sharp[name] * (1 - 1e-12)
                hessian = net.derivatives(name)[1]
                true = oracle.sharpest(hessian, weights[name].shape, rng, 2, 4)
                assert true <= sharp[name] * (1 + 1e-9), (name, seed)
                if name in ("input", "recurrent"):
                    worst = max(worst, true / sharp[name])
    # Not by a wide margin: math 5.5 measured 0.24, and 0.61 with residuals.
    assert worst > 0.1


@pytest.mark.parametrize("tier", ("vector", "tensor"))
def test_falling_activations_do_not_cancel(tier):
    """At these two arguments the slopes of silu are -0.1 and 0.1."""
    weights, x, y = cases.random_network((2, 1, 2, 1, 1), 0)
    weights = {name: np.zeros_like(w) for name, w in weights.items()}
    weights["bias"] = np.array([-2.4, -0.915])
    weights["output"] = np.array([[1000.0, 0.0], [1000.0, 0.0]])
    # The two classes are equally likely.
    sum_of_states = sum(z / (1 + np.exp(-z)) for z in weights["bias"])
    weights["output_bias"] = np.array([0.0, 1000 * sum_of_states])
    (net,) = cases.oracles(weights, x, y, "silu")
    hessian = net.derivatives("bias")[1]
    true = oracle.sharpest(hessian, (2,), np.random.default_rng(0))
    assert true > 1000
    constants = cases.constants_function(activation="silu", tier=tier)
    assert constants(weights, x, y)["bias"] >= true


def test_scalar_residual_form_is_attained():
    """math 5.5: for scalar states, where the Gauss-Newton part is small."""
    shape = (1, 1, 2, 1, 1)
    weights, x, y = cases.random_network(shape, 3)
    weights["output"] = 1e-4 * weights["output"]
    function = cases.constants_function(tier="tensor", residual=True)
    (net,) = cases.oracles(weights, x, y)
    hessian = net.derivatives("input")[1]
    actual = function(weights, x, y)["input"]
    assert_close(abs(hessian[0, 0]), actual, 1e-3)


# Steps of any size


@pytest.mark.parametrize("f", ("tanh", "sigmoid", "softplus"))
def test_the_global_bound_is_never_violated(f):
    rng = np.random.default_rng(0)
    function = cases.constants_function(
        with_radius=True, activation=f, tier="global"
    )
    for seed in range(20):
        weights, x, y = cases.random_network(SHAPES[1], seed, scale_of(seed))
        nets = cases.oracles(weights, x, y, f)
        start, slopes = loss(nets), gradients(nets, NAMES)
        for radius in (1e-3, 0.1, 1.0, 30.0):
            constants = function(weights, x, y, radius)
            for name in NAMES:
                d = rng.normal(size=weights[name].shape)
                for unit in (oracle.polar(d), -oracle.polar(slopes[name])):
                    step = radius * unit
                    moved = move(weights, name, step)
                    actual = loss(cases.oracles(moved, x, y, f))
                    bound = start + np.sum(slopes[name] * step)
                    bound += constants[name] * radius**2 / 2
                    assert actual <= bound + 1e-12 * (1 + abs(bound))


def test_the_global_bound_is_attained():
    """math 5.6: by a scalar tanh at zero under a large output kernel."""
    weights, x, y = cases.random_network((1, 1, 2, 3, 1), 0)
    weights = {name: 0 * value for name, value in weights.items()}
    weights["output"] = np.array([[1e4, -1e4]])
    constant = cases.constants_function(tier="global")(weights, x, y)["input"]
    (net,) = cases.oracles(weights, x, y)
    hessian = net.derivatives("input")[1]
    assert_close(hessian[0, 0], constant, 1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outputs", ("all", "last"))
def test_loss_bound(name, outputs):
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
        moved = cases.oracles(move(weights, name, step), x, y, outputs=outputs)
        expected = [oracle.loss_bound(n, m, name) for n, m in zip(nets, moved)]
        assert_close(float(actual), np.mean(expected), 1e-10)
        assert loss(moved) <= float(actual) + 1e-12


def test_loss_bound_of_joint_steps_in_every_mode(mode):
    weights, x, y = cases.random_network((3, 2, 4, 5, 2), 0)
    rng = np.random.default_rng(1)
    steps = {n: rng.normal(size=w.shape) for n, w in weights.items()}
    moved = {n: w + steps[n] for n, w in weights.items()}

    def bound(x, y):
        return rnn_loss_bound(**cases.arguments(weights), x=x, y=y, steps=steps)

    actual = float(helpers.evaluate(bound, x, y, mode=mode))
    assert loss(cases.oracles(moved, x, y)) <= actual
    assert_close(actual, float(bound(x, y)), 1e-12)


# Certified steps


@pytest.mark.parametrize("outputs", ("all", "last"))
def test_trust_region_is_the_root(mode, outputs):
    weights, x, y = cases.random_network((4, 3, 5, 6, 2), 0)
    given = cases.arguments(weights)
    del given["output_bias"]
    for size in (1e-3, 1.0):

        def region(x, size=size):
            return rnn_trust_region(
                **given, x=x, gradient_norm=size, outputs=outputs
            )

        radius = float(helpers.evaluate(region, x, mode=mode))
        constants = cases.constants_function(
            helpers.MODES[0], tier="global", radius=radius, outputs=outputs
        )(weights, x, y)
        constant = constants["recurrent"]
        assert_close(radius * constant, size, 1e-9)
        assert radius * constant <= size * (1 + 1e-12)


def test_default_radius_holds_every_certified_step():
    """Any labels: the step of the default constant stays in its region."""
    function = cases.constants_function(tier="global")
    regional = cases.constants_function(with_radius=True, tier="global")
    for seed in range(5):
        weights, x, y = cases.random_network((4, 2, 5, 4, 2), seed)
        constant = function(weights, x, y)["recurrent"]
        nets = cases.oracles(weights, x, y)
        gradient = gradients(nets, ["recurrent"])["recurrent"]
        length = oracle.nuclear(gradient) / constant
        least = regional(weights, x, y, length)["recurrent"]
        assert least <= constant * (1 + 1e-9)


def test_certified_steps_never_raise_the_loss():
    """300 cyclic updates of U, W, V, the second in its trust region."""
    weights, x, y = cases.random_network((4, 3, 5, 6, 2), 0)
    function = cases.constants_function(tier="global", radius=0.0)
    names = list(cases.ARGUMENTS)[:-1]

    def compute(size, x, *values):
        given = dict(zip(names, values, strict=True))
        return rnn_trust_region(x=x, gradient_norm=size, **given)

    region = helpers._compile(compute, cases.FAST)
    nets = cases.oracles(weights, x, y)
    first = value = loss(nets)
    for i in range(300):
        name = KERNELS[i % 3]
        gradient = gradients(nets, [name])[name]
        size = oracle.nuclear(gradient)
        if name == "recurrent":
            values = [weights[cases.ARGUMENTS[n]] for n in names]
            tensors = [ops.convert_to_tensor(v) for v in (size, x, *values)]
            length = float(region(*tensors))
        else:
            length = size / function(weights, x, y)[name]
        weights = move(weights, name, -length * oracle.polar(gradient))
        nets = cases.oracles(weights, x, y)
        certified = value - length * size / 2
        value = loss(nets)
        assert value <= certified + 1e-12
    assert value < 0.8 * first
