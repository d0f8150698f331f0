"""Gradients by states leave the states, and the metrics, as they were."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests.helpers import assert_close
from tf_spectral.callbacks import GradientFlowMonitor
from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.callbacks.gradient_flow import norms_function
from tf_spectral.layers import SpectralRNN

BATCH, TIME, FEATURES, UNITS = 2, 4, 3, 3
RNG = np.random.default_rng(0)
# The parts of one long sequence.
PARTS = RNG.normal(size=(3, BATCH, TIME, FEATURES)).astype("float32")
Y = RNG.normal(size=(BATCH, UNITS)).astype("float32")
LAYERS = (SpectralRNN, layers.LSTM)


def build(cls, stateful):
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


@pytest.mark.parametrize("cls", LAYERS)
def test_states_are_used_and_kept(cls):
    model, plain = build(cls, stateful=True), build(cls, stateful=False)
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
    model = build(layers.SimpleRNN, stateful=True)
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
