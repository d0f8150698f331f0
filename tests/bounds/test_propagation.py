"""Bounds of chains of dense layers: the formula, and brute force."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles_bounds as oracles
from tests.bounds.cases import CROSSENTROPY
from tests.bounds.cases import NORMS
from tests.bounds.cases import curvatures
from tests.bounds.cases import dense
from tests.bounds.cases import quiet
from tests.bounds.cases import read
from tests.helpers import assert_close
from tf_spectral.bounds import LayerwiseSmoothness

LOSSES = {
    "sum_of_squares": "sum_of_squares",
    "mean_squared_error": keras.losses.MeanSquaredError(),
    "crossentropy": keras.losses.CategoricalCrossentropy(from_logits=True),
    "binary_crossentropy": keras.losses.BinaryCrossentropy(from_logits=True),
    "huber": keras.losses.Huber(),
}
OPERATIONS = ("arctan", "erf", "sin")
BOUNDED = ("sigmoid", "tanh")


def chain(widths, activations):
    """A Sequential model in float64."""
    model = keras.Sequential([layers.Input(widths[:1], dtype="float64")])
    for units, name in zip(widths[1:], activations):
        activation = getattr(ops, name) if name in OPERATIONS else name
        model.add(layers.Dense(units, activation=activation, dtype="float64"))
    return model


def read_chain(widths, activations, q, loss, **options):
    return LayerwiseSmoothness.from_model(
        chain(widths, activations), q, loss=LOSSES[loss], **options
    )


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize(
    "widths", [(3, 5), (4, 3, 2), (2, 6, 1, 3), (5, 4, 3, 2, 6)]
)
def test_formula_for_any_depth(widths, q):
    rng = np.random.default_rng(0)
    for activation, loss in [
        ("tanh", "sum_of_squares"),
        ("sigmoid", "mean_squared_error"),
        ("softplus", "crossentropy"),
        ("gelu", "binary_crossentropy"),
        ("sin", "huber"),
    ]:
        names = [activation] * (len(widths) - 1)
        if activation in ("softplus", "gelu"):
            names[-1] = "linear"
        norms = rng.uniform(0.2, 3.0, 2 * len(names))
        expected = oracles.chain_bounds(widths, names, norms, q, loss)
        record = read_chain(widths, names, q, loss)
        assert record.certified
        assert_close(curvatures(record, norms), expected, 1e-9)


@pytest.mark.parametrize("q", NORMS)
def test_every_activation(q):
    norms = np.array([1.5, 0.3, 0.7, 2.0, 1.2, 0.9])
    for name in oracles.ACTIVATIONS:
        widths, names = (3, 4, 5, 2), [name, name, "linear"]
        expected = oracles.chain_bounds(widths, names, norms, q, "crossentropy")
        record = read_chain(widths, names, q, "crossentropy")
        assert_close(curvatures(record, norms), expected, 1e-8)


@pytest.mark.parametrize("q", NORMS)
def test_input_norm_scales_the_first_kernel_only(q):
    widths, names = (6, 4, 3), ["tanh", "linear"]
    norms = np.ones(4)
    expected = oracles.chain_bounds(
        widths, names, norms, q, "crossentropy", c1=0.37
    )
    record = read_chain(widths, names, q, "crossentropy", input_norm=0.37)
    assert_close(curvatures(record, norms), expected, 1e-9)


# math.md section 8, "Layer constants".
REFERENCE = {
    "sigmoid": {
        1: [2550285.5, 4.1491266, 45891.016, 0.50990018],
        2: [8962.2261, 11.431411, 402.64837, 1.3421612],
        "inf": [41.491266, 41.491266, 5.0990018, 5.0990018],
    },
    "tanh": {
        1: [20098024, 32.698004, 22500, 0.25],
        2: [47735.111, 60.886621, 150, 0.5],
        "inf": [115.39601, 115.39601, 1, 1],
    },
}


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("hidden", REFERENCE)
def test_reference_values(hidden, q):
    last = "sigmoid" if hidden == "sigmoid" else "linear"
    loss = "sum_of_squares" if hidden == "sigmoid" else "crossentropy"
    record = read_chain((784, 300, 10), [hidden, last], q, loss)
    assert record.needed_norms == (2,)
    actual = curvatures(record, [np.nan, np.nan, 10.0, np.nan])
    np.testing.assert_allclose(actual, REFERENCE[hidden][q], rtol=1e-7)


def test_width_of_the_input_counts():
    """Counter-example of math.md 4.3: n_K in place of n_0 is no bound."""
    record = read_chain((50, 1), ["sigmoid"], 1, "sum_of_squares")
    bound = curvatures(record, [0.0, 0.0])[0]
    np.testing.assert_allclose(bound, 1275, rtol=1e-3)
    x = np.ones((1, 50))
    jet = oracles.Jet.constant(x, 50)
    jet = jet.affine(np.zeros((50, 1)), np.zeros(1), "kernel").apply("sigmoid")
    hessian = jet.hessian("sum_of_squares", np.array([[0.5]]))
    u = np.ones(50)
    np.testing.assert_allclose(u @ hessian @ u, 312.5)
    assert bound > 312.5


# Brute force.


def run(weights, names, x, block=None):
    """The Jet of the network's output by variable number `block`."""
    m = 1 if block is None else weights[block].size
    jet = oracles.Jet.constant(x, m)
    for i, name in enumerate(names):
        starts = {2 * i: "kernel", 2 * i + 1: "bias"}
        jet = jet.affine(*weights[2 * i : 2 * i + 2], starts.get(block))
        jet = jet.apply(name)
    return jet


def random_network(rng, loss):
    depth = rng.integers(1, 4)
    widths = tuple(int(n) for n in rng.integers(1, 7, depth + 1))
    names = list(rng.choice(["sigmoid", "tanh", "softplus"], depth))
    squares = loss in ("sum_of_squares", "mean_squared_error")
    names[-1] = str(rng.choice(BOUNDED)) if squares else "linear"
    scale = 10 ** rng.uniform(-1, 0.6)
    weights = []
    for n_in, n_out in itertools.pairwise(widths):
        weights.append(scale * rng.normal(size=(n_in, n_out)))
        weights.append(scale * rng.normal(size=n_out))
    return widths, names, weights


def random_data(rng, widths, loss):
    x = rng.choice([-1.0, 1.0], (2, widths[0]))
    z = rng.uniform(0, 1, (2, widths[-1]))
    if loss == "crossentropy":
        z = np.eye(widths[-1])[rng.integers(0, widths[-1], 2)]
    return x, z


def largest_ratio(seed, q, loss):
    rng = np.random.default_rng(seed)
    widths, names, weights = random_network(rng, loss)
    x, z = random_data(rng, widths, loss)
    norms = [oracles.norm(w, q) for w in weights]
    bounds = curvatures(read_chain(widths, names, q, loss), norms)
    ratios = [0.0]
    for i, bound in enumerate(bounds):
        hessian = run(weights, names, x, i).hessian(loss, z)
        shape = weights[i].shape
        found = oracles.bilinear_norm(hessian, shape, q, rng)
        assert found <= bound * (1 + 1e-9) + 1e-12, (i, found, bound)
        ratios.append(found / bound)
    return max(ratios)


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_no_block_hessian_is_above_its_bound(loss, q):
    ratios = [largest_ratio(seed, q, loss) for seed in range(5)]
    assert 0.1 < max(ratios) <= 1 + 1e-9


def test_the_oracle_of_block_hessians():
    rng = np.random.default_rng(3)
    names = ["sigmoid", "softplus", "linear"]
    weights = [rng.normal(size=s) for s in [(2, 3), 3, (3, 2), 2, (2, 3), 3]]
    x, z = random_data(rng, (2, 3, 2, 3), "crossentropy")

    def loss(kernel):
        y = run([kernel, *weights[1:]], names, x).value
        log_sum = np.log(np.exp(y).sum(-1))
        return (log_sum - (y * z).sum(-1)).mean()

    hessian = run(weights, names, x, 0).hessian("crossentropy", z)
    u, t = rng.normal(size=(2, 3)), 1e-4
    k = weights[0]
    found = (loss(k + t * u) - 2 * loss(k) + loss(k - t * u)) / t**2
    assert_close(u.ravel() @ hessian @ u.ravel(), found, 1e-5)


@pytest.mark.parametrize("names", [["tanh"] * 3, ["softplus"] * 2 + ["linear"]])
@pytest.mark.parametrize("q", NORMS)
def test_no_bound_depends_on_its_own_variable(names, q):
    loss = "crossentropy" if names[-1] == "linear" else "sum_of_squares"
    record = read_chain((3, 4, 5, 2), names, q, loss)
    norms = np.linspace(0.5, 2.0, 6)
    before = curvatures(record, norms)
    for i in range(6):
        other = np.array(norms)
        other[i] *= 7.0
        after = curvatures(record, other)
        assert after[i] == before[i]
        assert (i in record.needed_norms) == np.any(after != before)


# Branches by hand, and whole models by second differences.


@pytest.mark.usefixtures("float64_layers")
def test_residual_sum_by_hand():
    """r-factor 1 + r_F and v-factor v_F, math.md 4.5."""
    inputs = layers.Input((3,))
    x = layers.Dense(4, activation="tanh")(inputs)
    x = layers.Add()([x, layers.Dense(4, activation="sigmoid")(x)])
    record = read(inputs, layers.Dense(2)(x), 2)
    z = np.array([9.0, 9.0, 1.5, 9.0, 0.7, 9.0])
    s1, s2 = 0.25, 1 / (6 * 3**0.5)
    r, v = 1 + s1 * z[2], s2 * z[2] ** 2
    r, v = z[4] * r, z[4] * v
    unit = 0.5 * r**2 + 2**0.5 * (v + 4 / (3 * 3**0.5) * r)
    branch = 0.5 * (s1 * z[4]) ** 2 + 2**0.5 * s2 * z[4]
    # The last input is a sum of two values of norm 4^(1/2).
    expected = [3 * unit, unit, 4 * branch, branch, 16 * 0.5, 0.5]
    assert_close(curvatures(record, z), expected, 1e-9)
    assert record.needed_norms == (2, 4)


def images():
    inputs = layers.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, strides=2, activation="tanh")(inputs)
    x = layers.AveragePooling2D(2)(x)
    x = layers.SeparableConv2D(3, 1, activation="softplus")(x)
    return inputs, layers.Dense(3)(layers.Flatten()(x))


def tokens():
    inputs = layers.Input((4,), dtype="int32")
    x = layers.Embedding(5, 3)(inputs)
    x = layers.Conv1D(3, 2, activation="silu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return inputs, layers.Dense(3)(x)


def sequences():
    inputs = layers.Input((4, 3))
    x = layers.Dense(2, activation="tanh")(inputs)
    return inputs, layers.Dense(3)(x)


def two_inputs():
    a, b = layers.Input((3,)), layers.Input((2,))
    x = layers.Dense(2, activation="tanh")(a)
    x = layers.Concatenate()([x, b])
    x = layers.Dense(3, activation="softmax")(x)
    return [a, b], layers.Dense(3)(x)


def log_loss(logits, targets):
    p = np.exp(logits)
    return -(targets * np.log(p / p.sum(-1, keepdims=True))).sum(-1).mean()


def example(shape, dtype, rng):
    if "int" in dtype:
        return rng.integers(0, 5, (2, *shape))
    return rng.choice([-1.0, 1.0], (2, *shape))


@pytest.mark.usefixtures("float64_layers")
@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("make", [images, tokens, sequences, two_inputs])
def test_second_differences_stay_below(make, q):
    model = keras.Model(*make())
    record = LayerwiseSmoothness.from_model(model, q, loss=CROSSENTROPY)
    assert record.certified
    rng = np.random.default_rng(1)
    x = [example(t.shape[1:], t.dtype, rng) for t in model.inputs]
    shape = (2, *model.outputs[0].shape[1:])
    z = np.eye(3)[rng.integers(0, 3, shape[:-1])]

    def loss():
        y = model(x if len(x) > 1 else x[0])
        return log_loss(ops.convert_to_numpy(y), z)

    variables = model.trainable_variables
    for v in variables:
        v.assign(rng.normal(size=v.shape))
    norms = [oracles.norm(ops.convert_to_numpy(v), q) for v in variables]
    bounds = curvatures(record, norms)
    here, t = loss(), 1e-3
    for v, bound in zip(variables, bounds):
        value = ops.convert_to_numpy(v)
        columns = value.shape[-1]
        for _ in range(3):
            g = rng.normal(size=value.shape).reshape(-1, columns)
            d = t * oracles.maximiser(g, q).reshape(value.shape)
            v.assign(value + d)
            change = loss()
            v.assign(value - d)
            change += loss() - 2 * here
            v.assign(value)
            assert change / t**2 <= bound * (1 + 1e-3) + 1e-6, v.path


def test_overflow_is_a_very_stiff_layer():
    model = dense(*["tanh"] * 6)
    record = quiet(model, loss="mse")
    norms = np.full(12, 1e30, "float32")
    p2 = ops.convert_to_numpy(record.squared_bounds_from_norms(norms))
    assert p2.dtype == np.float32
    assert np.all(np.isfinite(p2)) and p2[0] > 1e38 and p2[-1] < 1e3
