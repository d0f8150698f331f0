"""SpectralRNN: its matrix, its singular values, and what it refuses."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import assert_close
from tests.helpers import value_and_grad
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import EXACT
from tests.layers.contract import normal
from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell
from tf_spectral.parametrizations import SVD

UNITS, FEATURES = 6, 3
MODES = ("sigmoid", "clip", "free", "fixed")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def make(units=UNITS, features=FEATURES, **options):
    layer = SpectralRNN(units, **options)
    layer.build((None, None, features))
    return layer


def weight(layer, suffix):
    """The one trainable weight whose path ends so."""
    (variable,) = (
        v for v in layer.trainable_variables if v.path.endswith(suffix)
    )
    return variable


def randomize(layer, seed=0):
    for i, variable in enumerate(layer.trainable_variables):
        value = normal(*variable.shape, seed=seed + i)
        if "sigma" in variable.path and "logits" not in variable.path:
            value = 1.0 + 0.005 * value
        variable.assign(value)
    return layer


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(contract.DTYPE):
        yield


# The matrix


@pytest.mark.parametrize("sigma_mode", MODES)
@pytest.mark.parametrize("reflectors", (None, 2, (1, 3), (0, 2), (2, 0), 0))
def test_matrix_is_that_of_its_weights(reflectors, sigma_mode):
    layer = randomize(make(reflectors=reflectors, sigma_mode=sigma_mode))
    vectors = {"u": np.zeros((0, UNITS)), "v": np.zeros((0, UNITS))}
    sigma = np.ones(UNITS)
    for variable in layer.trainable_variables:
        name = variable.path.split("/")[-1]
        if name.endswith("reflectors"):
            vectors[name[0]] = oracles.pack(array(variable))
        elif name == "sigma_logits":
            # Zhang et al., equation 8.
            sigma = 0.2 * (1 / (1 + np.exp(-array(variable))) - 0.5) + 1.0
        elif name == "sigma":
            sigma = array(variable)
    matrix = oracles.spectral_kernel(vectors["u"], sigma, vectors["v"])
    assert_close(array(layer.matrix()), matrix, EXACT)
    actual = np.sort(array(layer.singular_values()))
    assert_close(actual, np.sort(np.abs(sigma)), EXACT)
    exact = np.linalg.svd(matrix, compute_uv=False)
    assert_close(actual, np.sort(exact), EXACT)


@pytest.mark.parametrize(
    "form,reflectors", [("dense", None), ("low_rank", 1), ("low_rank", 2)]
)
@pytest.mark.costly(keep=6)
def test_computes_its_formula(form, reflectors, mode):
    """From a state, a leading masked step holds it in and shows zero."""
    layer = make(
        form=form,
        reflectors=reflectors,
        return_sequences=True,
        return_state=True,
        activation="tanh",
    )
    randomize(layer)
    x, state = normal(3, 5, FEATURES), normal(3, UNITS, seed=1)
    mask = np.ones((3, 5), bool)
    mask[0, :2] = mask[1, 2:4] = mask[2] = False
    outputs, last = helpers.evaluate(
        lambda x, h: layer(
            x, initial_state=h, mask=ops.convert_to_tensor(mask)
        ),
        x,
        state,
        mode=mode,
    )
    expected, expected_last = oracles.simple_rnn(
        x,
        array(weight(layer, "cell/kernel")),
        array(weight(layer, "bias")),
        array(layer.matrix()),
        oracles.tanh,
        h0=state,
        mask=mask,
    )
    assert_close(outputs, expected, EXACT)
    assert_close(last, expected_last, EXACT)


def test_modrelu_trains_its_bias():
    layer = make(activation="modrelu", return_sequences=True)
    randomize(layer)
    x = normal(3, 5, FEATURES)
    bias = array(weight(layer, "mod_re_lu/bias"))
    expected, _ = oracles.simple_rnn(
        x,
        array(weight(layer, "cell/kernel")),
        array(weight(layer, "cell/bias")),
        array(layer.matrix()),
        oracles.modrelu(bias),
    )
    assert_close(array(layer(x)), expected, EXACT)
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    again.build((None, None, FEATURES))
    again.set_weights(layer.get_weights())
    assert_close(array(again(x)), expected, EXACT)


@pytest.mark.parametrize("sigma_mode", MODES)
@pytest.mark.costly
def test_singular_values_stay_in_bounds(sigma_mode):
    """20 steps of Adam, each as long as the whole interval, and longer."""
    layer = SpectralRNN(
        UNITS,
        reflectors=2,
        sigma_mode=sigma_mode,
        sigma_center=0.8,
        sigma_radius=0.2,
        activation="tanh",
    )
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    model.compile(keras.optimizers.Adam(3.0), "mse")
    values = np.linalg.svd(array(layer.matrix()), compute_uv=False)
    assert_close(values, np.full(UNITS, 0.8), EXACT)
    x, y = normal(20, 5, FEATURES), normal(20, UNITS)
    model.fit(x, y, batch_size=1, verbose=0)
    values = np.linalg.svd(array(layer.matrix()), compute_uv=False)
    assert_close(
        np.sort(values), np.sort(array(layer.singular_values())), EXACT
    )
    if sigma_mode == "fixed":
        assert_close(values, np.full(UNITS, 0.8), EXACT)
        return
    assert np.ptp(values) > 0.1
    inside = (0.6 - EXACT <= values) & (values <= 1.0 + EXACT)
    assert inside.all() == (sigma_mode != "free")


def test_gradient_through_time_keeps_its_length():
    """With sigma in [1-r, 1+r]: between (1-r)^T and (1+r)^T of before."""
    layer = make(activation="linear", sigma_radius=0.05)
    randomize(layer)
    steps, g = 40, normal(2, UNITS, seed=3)
    x = ops.zeros((2, steps, FEATURES))

    def loss(state):
        return helpers.inner(layer(x, initial_state=state), g)

    _, (gradient,) = value_and_grad(loss, normal(2, UNITS))
    ratio = np.linalg.norm(gradient, axis=1) / np.linalg.norm(g, axis=1)
    assert np.all((0.95**steps <= ratio) & (ratio <= 1.05**steps))


# Formed once


@pytest.fixture
def formed(monkeypatch):
    """How often any parametrization formed its matrix, in either form."""
    calls = []

    def counted(method):
        def call(self):
            calls.append(self)
            return method(self)

        return call

    for name in ("matrix", "diagonal_plus_low_rank"):
        monkeypatch.setattr(SVD, name, counted(getattr(SVD, name)))
    return calls


def cells(count, **options):
    cells, width = [], FEATURES
    for _ in range(count):
        cell = SpectralRNNCell(UNITS, **options)
        cell.build((None, width))
        cells.append(cell)
        width = UNITS
    return cells


@pytest.mark.parametrize("unroll", (False, True))
@pytest.mark.parametrize("form", ("dense", "low_rank"))
@pytest.mark.parametrize("training", (False, True))
def test_a_plain_rnn_forms_the_matrix_once(form, training, unroll, formed):
    options = {"form": form, "dropout": 0.1, "recurrent_dropout": 0.1}
    (cell,) = cells(1, **options)
    rnn = keras.layers.RNN(cell, unroll=unroll)
    x = normal(2, 7, FEATURES)
    for calls in (1, 2):
        rnn(x, training=training)
        assert len(formed) == calls


def test_stacked_cells_form_their_matrices_once(formed):
    stack = cells(3)
    rnn = keras.layers.RNN(stack)
    for calls in (1, 2):
        rnn(normal(2, 7, FEATURES))
        for cell in stack:
            count = sum(svd is cell.svd for svd in formed)
            assert count == calls


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recurrent_dropout": 0.1},
        {"unroll": True},
        {"activation": "gelu"},
    ],
    ids=("fast", "dropout", "unrolled", "fallback"),
)
@pytest.mark.parametrize("training", (False, True))
def test_the_layer_forms_the_matrix_once(options, training, formed):
    layer = make(**options)
    for calls in (1, 2):
        layer(normal(2, 7, FEATURES), training=training)
        assert len(formed) == calls


def test_a_new_weight_counts_at_once():
    """Nothing of one sequence is kept for the next."""
    layer = make()
    rnn = keras.layers.RNN(layer.cell)
    x = normal(2, 5, FEATURES)
    before = array(rnn(x)), array(layer(x))
    randomize(layer)
    state = ops.ones((2, UNITS))
    step, _ = layer.cell(x[:, 0], [state])
    expected = layer(x[:, :1], initial_state=state)
    assert_close(array(step), array(expected), EXACT)
    after = array(rnn(x)), array(layer(x))
    assert_close(after[0], after[1], EXACT)
    assert np.max(np.abs(after[0] - before[0])) > 0.01


def test_a_failed_sequence_counts_no_more(mode):
    """The matrix that a plain RNN formed before it failed is not used."""
    (cell,) = cells(1, activation="tanh")
    rnn = keras.layers.RNN(cell)
    x, state = normal(2, 5, FEATURES), normal(2, UNITS, seed=1)

    def fails(x, h):
        return rnn(x, initial_state=h)

    with pytest.raises(Exception):  # noqa: B017, as each backend's differs
        helpers.evaluate(fails, x, normal(3, UNITS), mode=mode)
    randomize(cell)
    z = x[:, 0] @ array(cell.kernel) + array(cell.bias)
    z = z + state @ array(cell.matrix())
    step, _ = cell(x[:, 0], [ops.convert_to_tensor(state)])
    assert_close(array(step), np.tanh(z), EXACT)


def test_direct_calls_of_a_cell(mode):
    (cell,) = cells(1, activation="tanh", dropout=0.5)
    x, state = normal(2, FEATURES), normal(2, UNITS, seed=1)
    z = x @ array(cell.kernel) + array(cell.bias)
    expected = np.tanh(z + state @ array(cell.matrix()))
    outputs = helpers.evaluate(
        lambda x, h: (cell(x, [h]), cell(x, h)), x, state, mode=mode
    )
    assert isinstance(outputs[0][1], list)
    for output in keras.tree.flatten(outputs):
        assert_close(output, expected, EXACT)
    (state,) = cell.get_initial_state(batch_size=2)
    assert_close(array(state), np.zeros((2, UNITS)), 0.0)


# Dropout


def test_the_same_inputs_are_dropped_at_every_step():
    """Singular values of zero: no memory, an output shows its input."""
    layer = make(
        UNITS,
        UNITS,
        sigma_center=0.0,
        sigma_radius=0.1,
        activation="linear",
        dropout=0.5,
        return_sequences=True,
    )
    layer.cell.kernel.assign(np.eye(UNITS))
    shown = array(layer(np.ones((8, 5, UNITS)), training=True))
    assert set(np.unique(shown)) == {0.0, 2.0}
    assert np.all(shown == shown[:, :1])
    assert np.ptp(shown[:, 0], axis=0).any()


def test_the_same_states_are_dropped_at_every_step():
    """No reflectors: R is the identity, a state doubles or is gone."""
    layer = make(
        reflectors=0,
        activation="linear",
        recurrent_dropout=0.5,
        return_sequences=True,
    )
    states = layer(
        np.zeros((8, 5, FEATURES)),
        initial_state=ops.ones((8, UNITS)),
        training=True,
    )
    states = array(states)
    assert set(np.unique(states[:, 0])) == {0.0, 2.0}
    for step in range(5):
        assert_close(states[:, step], states[:, 0] ** (step + 1), EXACT)


# Initial state, regularizers


def test_trainable_initial_state_starts_every_sequence():
    layer = make(trainable_initial_state=True, return_sequences=True)
    randomize(layer)
    start = array(weight(layer, "initial_state"))
    x = normal(4, 5, FEATURES)
    tiled = ops.convert_to_tensor(np.tile(start, (4, 1)))
    given = array(layer(x, initial_state=tiled))
    assert_close(array(layer(x)), given, EXACT)
    plain = keras.layers.RNN(layer.cell, return_sequences=True)
    assert_close(array(plain(x)), given, EXACT)
    assert layer.get_config()["trainable_initial_state"]


def test_trainable_initial_state_trains():
    layer = SpectralRNN(UNITS, trainable_initial_state=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    assert_close(array(weight(layer, "initial_state")), np.zeros(UNITS), 0.0)
    model.fit(normal(8, 3, FEATURES), normal(8, UNITS), verbose=0)
    assert np.all(np.abs(array(weight(layer, "initial_state"))) > 1e-3)


def test_as_it_comes():
    """A few reflectors, and a start at the identity where there can be."""
    for units, reflectors in ((1, 1), (5, 5), (16, 16), (40, 16)):
        layer = SpectralRNN(units)
        assert layer.svd.reflectors == (reflectors, reflectors)
        assert_close(array(layer.svd.matrix()), np.eye(units), 1e-6)
        again = SpectralRNN.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
    layer = SpectralRNN(6, reflectors=(2, 3), sigma_center=0.5)
    assert np.abs(array(layer.svd.matrix()) - 0.5 * np.eye(6)).max() > 0.1
    layer = SpectralRNN(6, reflectors=None, sigma_center=0.5)
    assert layer.svd.reflectors == (6, 6)
    assert_close(array(layer.svd.matrix()), 0.5 * np.eye(6), 1e-6)
    with pytest.raises(ValueError, match="`reflectors`.*few"):
        SpectralRNN(6, reflectors="few")


STEPS = 784


def sequences(kind):
    x = np.random.default_rng(0).normal(size=(32, STEPS, 2)).astype("float32")
    if kind == "padded":
        x[:, :600] = 0
    elif kind == "dark":
        x *= np.random.default_rng(1).random((1, STEPS, 1)) < 0.2
    return x


@pytest.mark.parametrize("kind", ["noise", "padded", "dark"])
@pytest.mark.parametrize("units", [16, 64])
@pytest.mark.costly(keep=2)
def test_gradients_reach_the_first_step_at_the_start(units, kind):
    """Of the layer, its activation included, and not of its matrix alone."""
    model = keras.Sequential(
        [
            keras.Input((STEPS, 2)),
            SpectralRNN(units),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    norms = gradient_norms_over_time(
        model,
        sequences(kind),
        np.arange(32) % 3,
        loss="sparse_categorical_crossentropy",
    )
    assert norms[0] > 0.05 * norms[-1]
    assert norms.max() < 2 * norms[-1]


def test_regularizers():
    # Keras keeps the factors in float32: these are exact. Not `L1`: that of
    # Keras 3.8 has a tensor of float32, which multiplies no float64.
    def l1(factor):
        return keras.regularizers.L1L2(l1=factor)

    layer = randomize(
        make(
            reflectors=2,
            kernel_regularizer=keras.regularizers.L2(0.125),
            bias_regularizer=l1(0.25),
            recurrent_regularizer=l1(0.5),
            sigma_regularizer=l1(2.0),
        )
    )
    names = [v.path.split("/")[-1] for v in layer.trainable_variables]
    arrays = [array(v) for v in layer.trainable_variables]
    state = [array(v) for v in layer.non_trainable_variables]

    def penalty(name, value):
        w = {**dict(zip(names, arrays)), name: value}
        sigma = 1.0 + 0.1 * np.tanh(w["sigma_logits"] / 2.0)
        matrix = oracles.spectral_kernel(
            oracles.pack(w["u_reflectors"]),
            sigma,
            oracles.pack(w["v_reflectors"]),
        )
        return (
            0.125 * np.sum(w["kernel"] ** 2)
            + 0.25 * np.sum(np.abs(w["bias"]))
            + 0.5 * np.sum(np.abs(matrix))
            + 2.0 * np.sum(np.abs(sigma))
        )

    def loss(*tensors):
        _, _, losses = layer.stateless_call(
            tensors, state, ops.zeros((1, 1, FEATURES)), return_losses=True
        )
        assert len(losses) == 4
        return sum(losses)

    expected = penalty("kernel", arrays[names.index("kernel")])
    assert_close(sum(float(v) for v in layer.losses), expected, EXACT)
    value, gradients = value_and_grad(loss, *arrays)
    assert_close(value, expected, EXACT)
    for name, gradient, at in zip(names, gradients, arrays, strict=True):
        exact = oracles.finite_difference(
            lambda value, name=name: penalty(name, value), at
        )
        assert_close(gradient, exact, max(CLOSE, 1e-6))


def test_regularizer_of_the_matrix_goes_over_to_the_simple_rnn():
    layer = make(recurrent_regularizer="l2")
    reference = layer.to_stock()
    assert_close(float(reference.losses[0]), float(layer.losses[0]), EXACT)


# What is refused


@pytest.mark.parametrize("layer", (SpectralRNN, SpectralRNNCell))
@pytest.mark.parametrize(
    "name,value",
    [
        ("reflectors", 7),
        ("reflectors", -1),
        ("reflectors", 2.0),
        ("reflectors", True),
        ("reflectors", "2"),
        ("reflectors", (1, 7)),
        ("reflectors", (1, 2, 3)),
        ("sigma_radius", 0.0),
        ("sigma_radius", -0.1),
        ("sigma_radius", 1.0),
        ("sigma_radius", 2.0),
        ("sigma_radius", float("nan")),
        ("sigma_center", -1.0),
        ("sigma_center", float("inf")),
        ("sigma_center", float("nan")),
        ("sigma_mode", "tanh"),
        ("sigma_mode", None),
        ("form", "sparse"),
        ("form", None),
        ("reflector_initializer", "glorot_uniform"),
        ("reflector_initializer", 3),
        ("units", 0),
        ("units", -2),
    ],
)
def test_refuses_arguments(layer, name, value):
    pattern = f"(?s)`{name}`.*{re.escape(str(value))}"
    with pytest.raises(ValueError, match=pattern):
        layer(**{"units": UNITS, name: value})


@pytest.mark.parametrize(
    "options,name",
    [
        (
            {"sigma_mode": "fixed", "sigma_regularizer": "l2"},
            "sigma_regularizer",
        ),
        ({"reflectors": 0, "recurrent_regularizer": "l2"}, "regularizer"),
        (
            {"stateful": True, "trainable_initial_state": True},
            "trainable_initial_state",
        ),
    ],
)
def test_refuses_what_does_not_go_together(options, name):
    with pytest.raises(ValueError, match=f"(?s){name}.*Received"):
        SpectralRNN(UNITS, **options)


@pytest.mark.parametrize("name", ("identity", "rotation"))
def test_initializers_that_need_equal_sides(name):
    with pytest.raises(ValueError, match="(?s)reflector_init.*Received"):
        SpectralRNN(UNITS, reflectors=(1, 2), reflector_initializer=name)


def test_refuses_unknown_arguments():
    with pytest.raises((TypeError, ValueError), match="surprise"):
        SpectralRNN(UNITS, surprise=1)


def test_refuses_what_a_free_matrix_would_have():
    for name in ("recurrent_initializer", "recurrent_constraint"):
        for kind in (SpectralRNN, SpectralRNNCell):
            with pytest.raises(ValueError, match=f"`{name}` does not apply"):
                kind(UNITS, **{name: "zeros"})
