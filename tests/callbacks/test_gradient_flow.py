"""Gradients by states: their values, and the states left as they were."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles
from tests.helpers import assert_close
from tf_spectral.callbacks import GradientFlowMonitor
from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.callbacks.gradient_flow import norms_function
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell

pytestmark = pytest.mark.usefixtures("eager")

BATCH, TIME, FEATURES, UNITS = 2, 4, 3, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, TIME, FEATURES)).astype("float32")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def simple_step(w, x, h, c, activation=np.tanh):
    kernel, recurrent, bias = w
    return activation(x @ kernel + h @ recurrent + bias), c


def spectral_step(w, x, h, c):
    return simple_step(w, x, h, c, lambda z: np.where(z > 0, z, np.expm1(z)))


def lstm_step(w, x, h, c):
    kernel, recurrent, bias = w
    z = x @ kernel + h @ recurrent + bias
    i, f, g, o = np.split(z, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(w, x, h, c):
    kernel, recurrent, (input_bias, recurrent_bias) = w
    x_z, x_r, x_h = np.split(x @ kernel + input_bias, 3, axis=1)
    h_z, h_r, h_h = np.split(h @ recurrent + recurrent_bias, 3, axis=1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return z * h + (1 - z) * np.tanh(x_h + r * h_h), c


LAYERS = {
    "simple": (layers.SimpleRNN, simple_step),
    "lstm": (layers.LSTM, lstm_step),
    "gru": (layers.GRU, gru_step),
    "spectral": (SpectralRNN, spectral_step),
}


def recurrent_weights(rnn):
    if isinstance(rnn.cell, SpectralRNNCell):
        weights = rnn.cell.kernel, rnn.cell.matrix(), rnn.cell.bias
    else:
        weights = rnn.weights
    return [keras.ops.convert_to_numpy(w).astype("float64") for w in weights]


def numpy_states(rnn, step, x, errors):
    """States `(batch, time, units)`, each with an error added to it."""
    weights = recurrent_weights(rnn)
    h = c = np.zeros((BATCH, UNITS))
    states = np.zeros((BATCH, TIME, UNITS))
    times = reversed(range(TIME)) if rnn.go_backwards else range(TIME)
    for t in times:
        h, c = step(weights, x[:, t], h, c)
        h = h + errors[:, t]
        states[:, t] = h
    return states, h


def expected_norms(rnn, step, loss_of_states):
    gradient = oracles.finite_difference(
        lambda e: loss_of_states(*numpy_states(rnn, step, X, e)),
        np.zeros((BATCH, TIME, UNITS)),
    )
    return np.sqrt(np.sum(gradient**2, axis=(0, 2)))


def build(cls, **options):
    rnn = cls(UNITS, bias_initializer="normal", **options)
    head = layers.Dense(2)
    inputs = layers.Input((None, FEATURES))
    model = keras.Model(inputs, head(rnn(inputs)))
    kernel = keras.ops.convert_to_numpy(head.kernel)
    y = RNG.normal(size=model(X).shape)
    return model, rnn, kernel, y


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_last_state_against_finite_differences(name, go_backwards):
    cls, step = LAYERS[name]
    model, rnn, kernel, y = build(cls, go_backwards=go_backwards)
    model.compile("sgd", "mse")
    expected = expected_norms(
        rnn, step, lambda states, h: np.mean((h @ kernel - y) ** 2)
    )
    assert_close(gradient_norms_over_time(model, X, y), expected, 1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_all_states_against_finite_differences(name, request):
    if name == "spectral":
        request.getfixturevalue("compiled_functions")
    cls, step = LAYERS[name]
    model, rnn, kernel, y = build(cls, return_sequences=True)
    expected = expected_norms(
        rnn, step, lambda states, h: np.mean((states @ kernel - y) ** 2)
    )
    actual = gradient_norms_over_time(model, X, y, loss="mse")
    assert_close(actual, expected, 1e-5)


def test_against_the_backward_recursion():
    model, rnn, kernel, y = build(layers.SimpleRNN)
    _, recurrent, _ = recurrent_weights(rnn)
    states, last = numpy_states(rnn, simple_step, X, np.zeros((2, 4, 3)))
    delta = 2 * (last @ kernel - y) / y.size @ kernel.T
    expected = []
    for t in reversed(range(TIME)):
        expected.insert(0, np.linalg.norm(delta))
        delta = delta * (1 - states[:, t] ** 2) @ recurrent.T
    actual = gradient_norms_over_time(model, X, y, loss="mse")
    assert_close(actual, expected, 1e-5)


def test_linear_orthogonal_recurrence_keeps_the_norm():
    rnn = SpectralRNN(
        8,
        reflectors=None,
        activation="linear",
        sigma_mode="fixed",
        reflector_initializer="gaussian",
    )
    model = keras.Sequential([rnn, layers.Dense(1)])
    x, y = RNG.normal(size=(3, 50, 2)), RNG.normal(size=(3, 1))
    norms = gradient_norms_over_time(model, x, y, loss="mse")
    assert norms.shape == (50,)
    assert_close(norms, np.full(50, norms[-1]), 1e-5)


def test_regularization_and_dropout_have_no_part():
    model, _, _, y = build(layers.SimpleRNN)
    weights = model.get_weights()
    expected = gradient_norms_over_time(model, X, y, loss="mse")
    model, *_ = build(
        layers.SimpleRNN,
        dropout=0.5,
        recurrent_dropout=0.5,
        kernel_regularizer="l2",
    )
    for variable, value in zip(model.weights, weights, strict=True):
        variable.assign(value)
    model.compile("sgd", "mse")
    assert_close(gradient_norms_over_time(model, X, y), expected, 1e-6)


def test_sum_over_a_batch_of_equal_sequences():
    model, *_ = build(layers.SimpleRNN)
    x, y = X[:1], np.ones((1, 2))
    one = gradient_norms_over_time(model, x, y, loss="mse")
    four = gradient_norms_over_time(
        model, np.repeat(x, 4, 0), np.repeat(y, 4, 0), loss="mse"
    )
    assert_close(2 * four, one, 1e-6)


def test_layer_in_a_nested_model_after_a_shortening_layer():
    inner = keras.Sequential([layers.SimpleRNN(3, name="deep")])
    model = keras.Sequential(
        [layers.Embedding(9, 4), layers.AveragePooling1D(2), inner]
    )
    x, y = np.ones((2, 10), "int32"), np.ones((2, 3))
    assert gradient_norms_over_time(model, x, y, loss="mse").shape == (5,)


def test_choice_among_layers():
    both = layers.Bidirectional(layers.SimpleRNN(3, name="rnn"))
    model = keras.Sequential([layers.Input((None, 3)), both])
    y = np.zeros((BATCH, 6))
    with pytest.raises(ValueError, match="forward_rnn"):
        gradient_norms_over_time(model, X, y, loss="mse")
    with pytest.raises(ValueError, match="exactly one"):
        gradient_norms_over_time(model, X, y, layer="other", loss="mse")
    by_name = gradient_norms_over_time(
        model, X, y, layer="backward_rnn", loss="mse"
    )
    by_layer = gradient_norms_over_time(
        model, X, y, layer=both.backward_layer, loss="mse"
    )
    assert_close(by_name, by_layer, 0.0)
    # It reads the first input last.
    assert by_name[0] > by_name[-1] > 0


def test_layer_that_runs_twice():
    rnn = layers.SimpleRNN(3, return_sequences=True)
    inputs = layers.Input((None, 3))
    model = keras.Model(inputs, rnn(rnn(inputs)))
    with pytest.raises(ValueError, match="Received: 2 runs"):
        gradient_norms_over_time(model, X, X, loss="mse")
    assert "inner_loop" not in vars(rnn)


def test_masks_are_refused_and_leave_the_cell_clean():
    rnn = layers.RNN(SpectralRNNCell(3))
    model = keras.Sequential([layers.Masking(), rnn])
    with pytest.raises(ValueError, match="must not get a mask"):
        gradient_norms_over_time(model, X, np.ones((2, 3)), loss="mse")
    assert not rnn.cell._is_formed() and "inner_loop" not in vars(rnn)


def test_stacked_cells_are_refused():
    rnn = layers.RNN([layers.LSTMCell(3), layers.LSTMCell(3)])
    with pytest.raises(ValueError, match="of one cell"):
        gradient_norms_over_time(
            keras.Sequential([rnn]), X, np.ones((2, 3)), loss="mse"
        )


def test_cell_with_an_output_of_its_own_is_refused():
    class Readout(layers.SimpleRNNCell):
        def call(self, sequence, states, training=False):
            output, states = super().call(sequence, states)
            return 2 * output, states

    model = keras.Sequential([layers.RNN(Readout(3))])
    with pytest.raises(ValueError, match="must be its first state"):
        gradient_norms_over_time(model, X, np.ones((2, 3)), loss="mse")


def test_no_loss():
    model, _, _, y = build(layers.SimpleRNN)
    with pytest.raises(ValueError, match="no loss"):
        gradient_norms_over_time(model, X, y)


@pytest.mark.usefixtures("compiled_functions")
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.slow
def test_monitor_follows_the_training(every, tmp_path):
    path = tmp_path / "norms.npz"
    model, _, _, y = build(SpectralRNN)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    monitor = GradientFlowMonitor(X, y, every=every, path=path)
    before = gradient_norms_over_time(model, X, y)
    logs = model.fit(X, y, epochs=2, callbacks=[monitor], verbose=0).history
    after = gradient_norms_over_time(model, X, y)

    epochs, norms = zip(*monitor.norms, strict=True)
    assert epochs == ((-1, 0, 1) if every == 1 else (-1, 1))
    assert_close(norms[0], before, 1e-6)
    assert_close(norms[-1], after, 1e-6)
    assert np.abs(after - before).max() > 1e-3 * before.max()
    assert logs["gradient_flow/first"][-1] == norms[-1][0]
    assert logs["gradient_flow/last"][-1] == norms[-1][-1]
    assert logs["gradient_flow/last"][0] == norms[1 if every == 1 else 0][-1]
    saved = np.load(path)
    assert tuple(saved["epochs"]) == epochs
    np.testing.assert_array_equal(saved["norms"], norms)
    # A training that goes on keeps what was measured before.
    monitor = GradientFlowMonitor(X, y, every=every, path=path)
    fit = {"initial_epoch": 2, "epochs": 4, "verbose": 0}
    model.fit(X, y, callbacks=[monitor], **fit)
    again = np.load(path)
    expected = (-1, 0, 1, 2, 3) if every == 1 else (-1, 1, 3)
    assert tuple(again["epochs"]) == expected
    earlier = saved["norms"][:-1]
    np.testing.assert_array_equal(again["norms"][: len(earlier)], earlier)


def test_monitor_checks_its_arguments():
    with pytest.raises(ValueError, match="`every`"):
        GradientFlowMonitor(X, X, every=0)
    with pytest.raises(ValueError, match="`path`"):
        GradientFlowMonitor(X, X, path="norms.txt")


# The parts of one long sequence.
PARTS = RNG.normal(size=(3, BATCH, TIME, FEATURES)).astype("float32")
Y = RNG.normal(size=(BATCH, UNITS)).astype("float32")


def stacked(cls, stateful):
    """The layer that is measured, after one that is as stateful."""
    model = keras.Sequential(
        [
            layers.Input(batch_shape=(BATCH, None, FEATURES)),
            layers.GRU(UNITS, stateful=stateful, return_sequences=True),
            cls(UNITS, stateful=stateful, name="measured"),
        ]
    )
    model.compile("sgd", "mse")
    return model


def states_of(model):
    return [
        ops.convert_to_numpy(state)
        for layer in model.layers
        for state in layer.states
    ]


def norms_of_long_sequence(model, parts):
    """Of the last part alone, by a model that has no state to keep."""
    x = np.concatenate(parts, axis=1)
    return gradient_norms_over_time(model, x, Y, "measured")[-TIME:]


@pytest.mark.parametrize("cls", [SpectralRNN, layers.LSTM])
def test_states_are_used_and_kept(cls):
    model, plain = stacked(cls, stateful=True), stacked(cls, stateful=False)
    plain.set_weights(model.get_weights())
    measure = norms_function(model, PARTS[0], Y, "measured", None)
    assert not any(state.any() for state in states_of(model))
    assert_close(measure(), norms_of_long_sequence(plain, PARTS[:1]), 1e-5)
    assert not any(state.any() for state in states_of(model))
    for _ in range(2):
        model(PARTS[1])
        before = states_of(model)
        norms = measure()
        for a, b in zip(states_of(model), before, strict=True):
            assert b.any() and np.array_equal(a, b)
        assert np.array_equal(measure(), norms)
        expected = norms_of_long_sequence(plain, [PARTS[1], PARTS[0]])
        assert_close(norms, expected, 1e-5)
        for layer in model.layers:
            layer.reset_state()


def test_states_are_kept_where_it_fails():
    model = stacked(layers.SimpleRNN, stateful=True)
    model(PARTS[0])
    before = states_of(model)
    with pytest.raises(Exception):  # noqa: B017, as each backend's differs
        gradient_norms_over_time(model, PARTS[1], Y[:, :2], "measured")
    for a, b in zip(states_of(model), before, strict=True):
        assert np.array_equal(a, b)


def test_states_that_the_measurement_makes_are_zero():
    model = keras.Sequential([layers.SimpleRNN(UNITS, stateful=True)])
    gradient_norms_over_time(model, PARTS[0], Y, loss="mse")
    (state,) = states_of(model)
    assert np.array_equal(state, np.zeros((BATCH, UNITS)))


def test_training_and_its_logs_stay_as_without_the_monitor():
    """Each of several losses has a metric that a run of the model moves."""

    def fit(*callbacks):
        keras.utils.set_random_seed(0)
        inputs = layers.Input(batch_shape=(BATCH, None, FEATURES))
        rnn = layers.SimpleRNN(UNITS, stateful=True)
        h = rnn(inputs)
        outputs = {name: layers.Dense(1, name=name)(h) for name in "ab"}
        model = keras.Model(inputs, outputs)
        losses = {"a": "mse", "b": "mae"}
        model.compile("sgd", losses, metrics={"a": "mae"})
        y = {"a": Y[:, :1], "b": Y[:, 1:2]}
        callbacks = [c(PARTS[1], y) for c in callbacks]
        logs = model.fit(
            PARTS[0], y, epochs=3, callbacks=callbacks, verbose=0
        ).history
        return {k: v for k, v in logs.items() if "gradient" not in k}

    logs = fit()
    assert {"a_loss", "b_loss", "a_mae"} <= set(logs)
    assert fit(GradientFlowMonitor) == logs
