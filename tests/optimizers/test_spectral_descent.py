"""SpectralDescent against plain NumPy, and what its constants promise."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from tests import oracles_norms
from tests import oracles_spectral_descent as oracles
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.optimizers.stepping import stepper
from tf_spectral.optimizers import SpectralDescent

DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
# On JAX and PyTorch, as in use, in float32.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}[DTYPE]
SHAPES = ((5, 7), (6,), (7, 4), (2, 2, 3, 4), (), (1, 3), (4, 1), (1, 1))
CONSTANTS = (3.0, 1.0, 0.5, 2.0, 1.5, 4.0, 0.25, 1.0)


def weights(shapes=SHAPES, dtype=DTYPE):
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.normal(size=shape).astype(dtype), name=f"w{i}")
        for i, shape in enumerate(shapes)
    ]


def gradients(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(DTYPE) for shape in shapes]


def apply(optimizer, variables, values):
    """The steps that gradients lead to."""
    tensors = [ops.convert_to_tensor(g) for g in values]
    return changes(lambda: optimizer.apply(tensors, variables), variables)


def changes(step, variables):
    before = [ops.convert_to_numpy(v).copy() for v in variables]
    step()
    after = [ops.convert_to_numpy(v) for v in variables]
    return [b - a for b, a in zip(before, after)]


def by_name(values):
    return {f"w{i}": value for i, value in enumerate(values)}


FORMS = {
    "all": {},
    "momentum": {"momentum": 0.6},
    "rms": {"preconditioner": "rms", "rho": 0.9, "epsilon": 1e-3},
    "adagrad": {"preconditioner": "adagrad", "momentum": 0.3},
    "cyclic": {"selection": "cyclic", "momentum": 0.5},
    "greedy": {"selection": "greedy", "momentum": 0.5},
    "greedy rms": {"selection": "greedy", "preconditioner": "rms"},
}


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.costly(keep=3)
def test_steps_are_those_of_the_specification(form):
    options = FORMS[form]
    variables = weights()
    optimizer = SpectralDescent(
        0.5, by_name(CONSTANTS), polar_accuracy="exact", **options
    )
    oracle = oracles.SpectralDescent(CONSTANTS, 0.5, **options)
    step = stepper(optimizer, variables)
    moved = set()
    for seed in range(9):
        values = gradients(seed)
        # One weight or another has the largest score.
        values[seed % 8] = 20.0 * values[seed % 8]
        steps = changes(lambda: step(values), variables)  # noqa: B023
        for i, (actual, expected) in enumerate(
            zip(steps, oracle.steps(values))
        ):
            assert_close(actual, expected, TOLERANCE)
            if expected.any():
                moved.add(i)
    assert len(moved) > (3 if "greedy" in form else 7)


def test_no_step_is_longer_than_its_radius():
    radii = (0.01, 10.0, 100.0, 0.3, 0.02, 1.0, 1.0, 50.0)
    variables = weights()
    optimizer = SpectralDescent(
        0.5,
        by_name(CONSTANTS),
        radius=by_name(radii),
        polar_accuracy="exact",
    )
    oracle = oracles.SpectralDescent(CONSTANTS, 0.5, radii=radii)
    values = gradients(1)
    expected = oracle.steps(values)
    free = oracles.SpectralDescent(CONSTANTS, 0.5).steps(values)
    bound = [np.any(a != b) for a, b in zip(expected, free)]
    assert 1 < sum(bound) < len(bound)
    # The norm of a vector is known up to a margin for rounding of 1e-6.
    for step, other in zip(apply(optimizer, variables, values), expected):
        assert_close(step, other, max(TOLERANCE, 2e-6))


def test_a_number_as_radius_or_constant_is_that_of_all():
    optimizer = SpectralDescent(1.0, 2.0, radius=1e-3, polar_accuracy="exact")
    for step in apply(optimizer, weights(), gradients(0)):
        norm = np.linalg.norm(step) if step.ndim < 2 else None
        size = oracles_norms.induced_norm(step, 2) if norm is None else norm
        assert_close(size, 1e-3, 1e-3)


def test_approximate_steps_are_shorter_never_longer():
    values = gradients(3)
    for accuracy, share in (("standard", 0.985), ("fast", 0.85)):
        optimizer = SpectralDescent(1.0, 1.0, polar_accuracy=accuracy)
        for step, g in zip(apply(optimizer, weights(), values), values):
            exact = np.sum(oracles_norms.duality_map(g, 2) * g)
            assert share**2 * exact < np.sum(step * g) < exact * (1 + 1e-5)


def test_unit_metric_gives_the_plain_step():
    """Math 7 (8): where all of A is the same, it is a number."""
    variables = weights()
    values = gradients(0)
    preconditioned = SpectralDescent(
        0.5,
        by_name(CONSTANTS),
        preconditioner="rms",
        epsilon=1e12,
        polar_accuracy="exact",
    )
    steps = apply(preconditioned, variables, values)
    expected = oracles.SpectralDescent(CONSTANTS, 0.5).steps(values)
    # A step of 1e-12 is read off weights of size one.
    for step, other in zip(steps, expected):
        assert np.max(np.abs(step - other / 1e12)) < 1e-6


@pytest.mark.parametrize("selection", ["all", "cyclic", "greedy"])
def test_zero_gradients_change_nothing(selection):
    for preconditioner in (None, "rms", "adagrad"):
        optimizer = SpectralDescent(
            1.0, 1.0, selection=selection, preconditioner=preconditioner
        )
        zeros = [np.zeros(shape, DTYPE) for shape in SHAPES]
        for step in apply(optimizer, weights(), zeros):
            assert not step.any()


@pytest.mark.parametrize("selection", ["all", "cyclic", "greedy"])
def test_infinite_constants_stop_a_weight(selection):
    constants = {"w0": np.inf, "default": 1.0}
    optimizer = SpectralDescent(1.0, constants, selection=selection, radius=1.0)
    variables = weights()
    values = gradients(0)
    values[0] = 1e3 * values[0]
    steps = apply(optimizer, variables, values)
    assert not steps[0].any()
    assert all(np.isfinite(step).all() for step in steps)
    assert any(step.any() for step in steps) == (selection != "cyclic")
    everything = SpectralDescent(1.0, np.inf, selection=selection)
    for step in apply(everything, weights(), values):
        assert not step.any()


@pytest.mark.parametrize("preconditioner", [None, "rms", "adagrad"])
def test_bad_gradients_leave_no_trace(preconditioner):
    options = {"momentum": 0.5, "preconditioner": preconditioner}
    optimizer = SpectralDescent(0.1, 1.0, **options)
    variables = weights()
    apply(optimizer, variables, gradients(0))
    kept = [ops.convert_to_numpy(v) for v in optimizer.variables]
    bad = [np.nan, np.inf]
    if preconditioner:
        # Its square is not finite.
        bad.append(1e200 if DTYPE == "float64" else 1e30)
    for value in bad:
        values = gradients(1)
        values[3] = np.full(SHAPES[3], value, DTYPE)
        for step in apply(optimizer, variables, values):
            assert not step.any()
    assert int(ops.convert_to_numpy(optimizer.skipped_steps)) == len(bad)
    names = [v.name for v in optimizer.variables]
    for name, old, variable in zip(names, kept, optimizer.variables):
        if "average" in name or "squares" in name:
            np.testing.assert_array_equal(ops.convert_to_numpy(variable), old)
    with pytest.warns(UserWarning, match="left out"):
        optimizer.finalize_variable_values(variables)


@pytest.mark.slow
def test_random_selection_moves_one_weight_and_repeats_by_seed():
    def moved(seed):
        variables = weights(SHAPES[:3])
        optimizer = SpectralDescent(1.0, 1.0, "random", seed=seed)
        step = stepper(optimizer, variables)
        order = []
        for count in range(12):
            values = gradients(count, SHAPES[:3])
            steps = changes(lambda: step(values), variables)  # noqa: B023
            order.append([i for i, s in enumerate(steps) if s.any()])
        return order

    assert (order := moved(1)) == moved(1) != moved(2)
    assert {len(places) for places in order} == {1}
    assert {place for (place,) in order} == {0, 1, 2}


def softmax_regression():
    """A dense softmax layer and its exact constants (math 5.2)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(DTYPE)
    y = np.argmax(x @ rng.normal(size=(6, 4)), axis=1)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype=DTYPE),
            keras.layers.Dense(4, "softmax", name="out", dtype=DTYPE),
        ]
    )
    constants = {
        "out/kernel": float(np.mean(np.sum(x**2, axis=1))),
        "bias": 1.0,
    }
    return model, x, y, constants


@pytest.mark.parametrize("selection", ["cyclic", "greedy"])
@pytest.mark.parametrize("accuracy", ["standard", "exact"])
def test_each_step_gains_what_is_certified(selection, accuracy):
    model, x, y, constants = softmax_regression()
    optimizer = SpectralDescent(
        1.0, constants, selection=selection, polar_accuracy=accuracy
    )
    values = (constants["out/kernel"], constants["bias"])
    kernel, bias = (
        ops.convert_to_numpy(v).astype("float64")
        for v in model.trainable_variables
    )
    rounding = 1e-12 if DTYPE == "float64" else 1e-6
    step = stepper(optimizer, model.trainable_variables)
    losses, gains = [], []
    for count in range(30):
        logits = x @ kernel + bias
        logits = logits - logits.max(axis=1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.mean(np.log(p[np.arange(40), y])))
        error = (p - np.eye(4)[y]) / 40
        g = [(x.T @ error).astype(DTYPE), error.sum(axis=0).astype(DTYPE)]
        step(g)
        new = [ops.convert_to_numpy(v) for v in model.trainable_variables]
        place = int(np.any(new[1] != bias.astype(DTYPE)))
        if selection == "cyclic":
            assert place == count % 2
        share = 0.99 if accuracy == "standard" else 1.0
        size = share * oracles_norms.dual_norm(g[place], 2)
        gains.append(size**2 / (2 * values[place]))
        kernel, bias = (v.astype("float64") for v in new)
    decreases = -np.diff(losses)
    assert np.all(decreases >= np.array(gains[:-1]) - rounding)
    assert losses[-1] < 0.6 * losses[0]


def test_a_stable_quadratic_with_momentum_at_rate_one():
    """The average keeps the theory's step: no divergence, and a minimum."""
    target = gradients(5, [(6, 4)])[0]
    variables = weights([(6, 4)])
    # ||W - T||_F^2 / 2 is smooth by the rank in the spectral norm.
    step = stepper(SpectralDescent(1.0, 4.0, momentum=0.5), variables)
    for _ in range(40):
        step([ops.convert_to_numpy(variables[0]) - target])
    assert_close(ops.convert_to_numpy(variables[0]), target, 0.05)


def test_unset_constants_do_not_move_and_warn_once():
    optimizer = SpectralDescent(lipschitz={"w0": 1.0, "default": "bound"})
    variables = weights()
    steps = apply(optimizer, variables, gradients(0))
    assert steps[0].any() and not any(step.any() for step in steps[1:])
    with pytest.warns(UserWarning, match="LipschitzEstimator"):
        optimizer.finalize_variable_values(variables)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*LipschitzEstimator")
        optimizer.finalize_variable_values(variables)
    with pytest.raises(ValueError, match="positive"):
        optimizer.set_constants({0: 1.0, 1: 0.0})
    optimizer.set_constants(dict(enumerate(CONSTANTS)), {2: 0.5})
    assert all(step.any() for step in apply(optimizer, variables, gradients(0)))
    np.testing.assert_allclose(ops.convert_to_numpy(optimizer.radii)[2], 0.5)
    assert optimizer.bounded_weights == list(range(1, 8))


def test_greedy_trains_in_a_compiled_step():
    model, x, y, constants = softmax_regression()
    model.compile(
        SpectralDescent(1.0, constants, selection="greedy", momentum=0.2),
        "sparse_categorical_crossentropy",
        jit_compile=BACKEND != "torch",
    )
    losses = model.fit(x, y, batch_size=40, epochs=5, verbose=0)
    assert np.all(np.diff(losses.history["loss"]) < 0)


@pytest.mark.parametrize(
    "options,match",
    [
        ({"lipschitz": 0.0}, "lipschitz"),
        ({"lipschitz": -1}, "lipschitz"),
        ({"lipschitz": np.nan}, "lipschitz"),
        ({"lipschitz": True}, "lipschitz"),
        ({"lipschitz": "best"}, '"bound"'),
        ({"lipschitz": {}}, "lipschitz"),
        ({"lipschitz": {0: 1.0}}, "lipschitz"),
        ({"lipschitz": {"kernel": 0.0}}, 'lipschitz\\["kernel"\\]'),
        ({"radius": 0}, "radius"),
        ({"radius": "bound"}, "radius"),
        ({"radius": {"kernel": -1.0}}, "radius"),
        ({"selection": "sequential"}, "selection"),
        ({"preconditioner": "adam"}, "preconditioner"),
        ({"preconditioner": "rms", "lipschitz": "bound"}, "lipschitz=1.0"),
        ({"lipschitz": "measure"}, 'number or "measured" or "bound"'),
        ({"lipschitz": {"default": "measured"}}, 'number or "bound"'),
        ({"radius": 1.0}, "`radius`.*measured"),
        ({"norm": 1}, "`norm`"),
        ({"lipschitz": 1.0, "blocks": {"w0": 1}}, "`blocks`"),
        ({"blocks": 3}, "`blocks`"),
        ({"momentum": 1.0}, "momentum"),
        ({"rho": -0.1}, "rho"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"polar_accuracy": 0.9}, "polar_accuracy"),
        ({"selection": "greedy", "clipnorm": 1.0}, "clipnorm"),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        SpectralDescent(**options)


@pytest.mark.parametrize(
    "options,match",
    [
        ({"lipschitz": {"kernel": 1.0, "default": 1.0}}, '"kernel"'),
        ({"lipschitz": {"w0": 1.0}}, "w1(.|\n)*default"),
        ({"lipschitz": 1.0, "radius": {"kernel": 1.0}}, "radius"),
    ],
)
def test_names_that_do_not_fit(options, match):
    variables = weights()
    optimizer = SpectralDescent(**options)
    with pytest.raises(ValueError, match=match):
        optimizer.build(variables)
    assert not optimizer.built


def test_measured_steps_have_no_constants():
    optimizer = SpectralDescent()
    optimizer.build(weights())
    assert optimizer.bounded_weights == []
    for name in ("constants", "radii"):
        with pytest.raises(AttributeError, match=f"`{name}`(.|\n)*measured"):
            getattr(optimizer, name)
    with pytest.raises(AttributeError, match="measured"):
        optimizer.set_constants({0: 1.0})


def test_config_keeps_what_was_given():
    options = {
        "lipschitz": {"kernel": 2.0, "default": "bound"},
        "radius": {"kernel": 0.5},
        "selection": "cyclic",
        "momentum": 0.5,
    }
    optimizer = SpectralDescent(0.5, **options)
    config = optimizer.get_config()
    assert {name: config[name] for name in options} == options
    again = SpectralDescent.from_config(config)
    assert again.get_config() == config


def test_a_radius_and_a_metric_exclude_each_other():
    with pytest.raises(ValueError, match="`radius`.*radius=None beside"):
        SpectralDescent(lipschitz=1.0, preconditioner="rms", radius=0.1)


def test_epsilon_is_one_number():
    with pytest.raises(ValueError, match="`epsilon` must be a positive"):
        SpectralDescent(epsilon={"kernel": 1e-8})
