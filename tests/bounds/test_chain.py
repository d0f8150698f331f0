"""Bounds of chains of dense layers: the formula, and brute force."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles_bounds as oracles
from tests.helpers import assert_close
from tf_spectral.bounds import LayerwiseSmoothness

NORMS = (1, 2, "inf")
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


def curvatures(record, norms):
    """`s_i` without the offset, as NumPy."""
    p2 = record.squared_bounds_from_norms(np.asarray(norms, "float64"))
    return ops.convert_to_numpy(p2) - record.offset


def read(widths, activations, q, loss, **options):
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
        record = read(widths, names, q, loss)
        assert record.certified
        assert_close(curvatures(record, norms), expected, 1e-9)


@pytest.mark.parametrize("name", oracles.ACTIVATIONS)
@pytest.mark.parametrize("q", NORMS)
def test_every_activation(name, q):
    widths, names = (3, 4, 5, 2), [name, name, "linear"]
    norms = np.array([1.5, 0.3, 0.7, 2.0, 1.2, 0.9])
    expected = oracles.chain_bounds(widths, names, norms, q, "crossentropy")
    record = read(widths, names, q, "crossentropy")
    assert_close(curvatures(record, norms), expected, 1e-8)


@pytest.mark.parametrize("q", NORMS)
def test_input_norm_scales_the_first_kernel_only(q):
    widths, names = (6, 4, 3), ["tanh", "linear"]
    norms = np.ones(4)
    expected = oracles.chain_bounds(
        widths, names, norms, q, "crossentropy", c1=0.37
    )
    record = read(widths, names, q, "crossentropy", input_norm=0.37)
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
    record = read((784, 300, 10), [hidden, last], q, loss)
    assert record.needed_norms == (2,)
    actual = curvatures(record, [np.nan, np.nan, 10.0, np.nan])
    np.testing.assert_allclose(actual, REFERENCE[hidden][q], rtol=1e-7)


def test_width_of_the_input_counts():
    """Counter-example of math.md 4.3: n_K in place of n_0 is no bound."""
    record = read((50, 1), ["sigmoid"], 1, "sum_of_squares")
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
    bounds = curvatures(read(widths, names, q, loss), norms)
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
    ratios = [largest_ratio(seed, q, loss) for seed in range(8)]
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
    record = read((3, 4, 5, 2), names, q, loss)
    norms = np.linspace(0.5, 2.0, 6)
    before = curvatures(record, norms)
    for i in range(6):
        other = np.array(norms)
        other[i] *= 7.0
        after = curvatures(record, other)
        assert after[i] == before[i]
        assert (i in record.needed_norms) == np.any(after != before)
