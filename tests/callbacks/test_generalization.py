"""GeneralizationMonitor against the formula, on each kind of network."""

import math

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_spectral
from tests import oracles_generalization as oracles
from tests.helpers import assert_close
from tf_spectral.callbacks import GeneralizationMonitor
from tf_spectral.callbacks.networks import class_margins
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralRNN

pytestmark = pytest.mark.usefixtures("eager")

X = np.random.default_rng(0).normal(size=(12, 5, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, size=12)
NAMES = (
    "log_complexity",
    "log_gap",
    "gap",
    "log_gradient_bound",
    "margin",
    "margin_error",
)


def compiled(rnn, *before, classes=4, **kwargs):
    model = keras.Sequential(
        [layers.Input((5, 3)), *before, rnn, layers.Dense(classes, **kwargs)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss if classes > 1 else "mse")
    return model


def fit(model, *callbacks, epochs=1, y=Y, **kwargs):
    return model.fit(
        X,
        y,
        batch_size=4,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
        **kwargs,
    ).history


def disturb(model):
    """Weights as training may leave them, and no training."""
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        noise = 0.3 * rng.normal(size=variable.shape)
        variable.assign_add(noise.astype("float32"))
    return model


def measured(model, monitor):
    """The values of the logs in the order of `NAMES`."""
    monitor.set_model(model)
    monitor.prepare()
    logs = monitor.measure(0)
    return [logs[f"generalization/{name}"] for name in NAMES]


def numpy_of(x):
    return ops.convert_to_numpy(x).astype("float64")


def margins_of(model, y=Y):
    """By a loop over the examples, from the model's own outputs."""
    margins = []
    for logits, label in zip(numpy_of(model(X)), y):
        others = [v for k, v in enumerate(logits) if k != label]
        margins.append(float(logits[label]) - float(max(others)))
    return np.array(margins)


@pytest.mark.parametrize(
    "rnn",
    [
        lambda: SpectralRNN(6, reflectors=2, sigma_radius=0.3),
        lambda: OrthogonalRNN(6, activation="relu"),
        lambda: layers.SimpleRNN(6, activation="relu"),
    ],
)
def test_values_are_those_of_the_model(rnn):
    rnn = rnn()
    model = compiled(rnn)
    if not isinstance(rnn, OrthogonalRNN):
        disturb(model)
    monitor = GeneralizationMonitor(X, Y, margin=0.5, examples=1000)
    values = dict(zip(NAMES, measured(model, monitor)))
    matrix = (
        rnn.cell.recurrent_kernel
        if isinstance(rnn, layers.SimpleRNN)
        else rnn.matrix()
    )
    kernels = [
        numpy_of(k) for k in (rnn.cell.kernel, matrix, model.layers[-1].kernel)
    ]
    bound = float(np.linalg.norm(X.astype("float64"), axis=-1).max())
    complexity = oracles.theorem(*kernels, bound, 5, 0.5)
    gap = oracles.gap(complexity, 5, 1000, 0.05)
    assert_close(values["log_complexity"], float(complexity.ln()), 1e-5)
    assert_close(values["log_gap"], float(gap.ln()), 1e-5)
    assert_close(values["gap"], float(gap), 1e-4)
    top = 4 * math.log(np.linalg.norm(kernels[1], 2))
    assert_close(values["log_gradient_bound"], top, 1e-4, scale=1)
    assert values["margin"] == 0.5
    assert values["margin_error"] == np.mean(margins_of(model) <= 0.5)
    assert all(type(value) is float for value in values.values())


def test_margin_is_a_quantile():
    model = compiled(SpectralRNN(6))
    monitor = GeneralizationMonitor(X, Y, quantile=0.75)
    margin = measured(model, monitor)[4]
    assert_close(margin, np.quantile(margins_of(model), 0.75), 1e-5)
    assert monitor.examples == 12


def test_margin_below_zero_has_no_bound():
    model = compiled(SpectralRNN(6))
    monitor = GeneralizationMonitor(X, Y, quantile=0.0)
    values = dict(zip(NAMES, measured(model, monitor)))
    assert values["margin"] < 0
    names = ("log_complexity", "log_gap", "gap")
    assert all(values[name] == math.inf for name in names)
    assert values["margin_error"] == 1 / 12


def test_forms_of_the_labels():
    rows = np.eye(4)[Y]
    model, found = compiled(SpectralRNN(6)), []
    for y in (Y, Y[:, None], rows, rows.astype("float32"), list(Y)):
        monitor = GeneralizationMonitor(X, y, quantile=0.9)
        found.append(measured(model, monitor))
    assert all(values == found[0] for values in found)


def test_a_spectralized_model():
    model = keras.Sequential(
        [
            keras.Input((4, 2)),
            keras.layers.SimpleRNN(3),
            keras.layers.Dense(2),
        ]
    )
    x, y = np.ones((4, 4, 2), "float32"), np.array([0, 1, 0, 1])
    found = []
    for net in (model, tf_spectral.spectralize(model)):
        monitor = GeneralizationMonitor(x, y, margin=0.1)
        found.append(measured(net, monitor)[0])
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_two_classes_by_one_logit():
    y = Y % 2
    model = compiled(SpectralRNN(6), classes=1)
    monitor = GeneralizationMonitor(X, y, quantile=0.5)
    margin = measured(model, monitor)[4]
    logits = numpy_of(model(X))[:, 0]
    assert_close(margin, np.median((2 * y - 1) * logits), 1e-5)


def test_softmax_and_layers_before():
    """Of a softmax it is the logits that count."""
    before = layers.Rescaling(2.0)
    model = compiled(SpectralRNN(6), before, activation="softmax")
    monitor = GeneralizationMonitor(X, Y, margin=1.0)
    given = GeneralizationMonitor(X, Y, margin=1.0, input_bound=1.0)
    for callback in (monitor, given):
        measured(model, callback)
    states = model.layers[1](2.0 * X)
    head = model.layers[-1]
    logits = numpy_of(states) @ numpy_of(head.kernel) + numpy_of(head.bias)
    error = np.mean(class_margins(logits, Y) <= 1.0)
    assert monitor.history["generalization/margin_error"][-1] == error
    bound = 2 * np.linalg.norm(X.astype("float64"), axis=-1).max()
    name = "generalization/log_complexity"
    ratio = monitor.history[name][-1] - given.history[name][-1]
    assert_close(ratio, 2 * math.log(bound), 1e-5)


def test_masked_steps_are_left_out():
    x = X.copy()
    x[: len(x) // 2, -2:] = 0.0
    model = compiled(SpectralRNN(6), layers.Masking())
    monitor = GeneralizationMonitor(x, Y, quantile=0.5)
    margin = measured(model, monitor)[4]
    margins = class_margins(numpy_of(model(x)), Y)
    assert_close(margin, np.quantile(margins, 0.5), 1e-5)
    unmasked = model.layers[2](model.layers[1](x))
    others = class_margins(numpy_of(unmasked), Y)
    assert abs(np.quantile(others, 0.5) - margin) > 1e-4


@pytest.mark.usefixtures("compiled_functions")
@pytest.mark.slow
def test_history_and_every(tmp_path):
    monitor = GeneralizationMonitor(X, Y, margin=1.0, every=2)
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    history = fit(compiled(SpectralRNN(6)), monitor, logger, epochs=3)
    assert monitor.history["epoch"] == [-1, 1]
    for name in NAMES:
        first, second = monitor.history[f"generalization/{name}"]
        logged = history[f"generalization/{name}"]
        assert logged == [first, second, second]


@pytest.mark.parametrize(
    "rnn,message",
    [
        (layers.LSTM(4), "SimpleRNN, SpectralRNN or OrthogonalRNN"),
        (layers.Flatten(), "SimpleRNN, SpectralRNN or OrthogonalRNN"),
        (SpectralRNN(4, return_sequences=True), "return_sequences off"),
    ],
)
def test_refuses_other_models(rnn, message):
    monitor = GeneralizationMonitor(X, Y)
    monitor.set_model(compiled(rnn))
    with pytest.raises(ValueError, match=message):
        monitor.prepare()


def test_refuses_a_trained_layer_before():
    monitor = GeneralizationMonitor(X, Y)
    monitor.set_model(compiled(SpectralRNN(4), layers.Dense(2)))
    with pytest.raises(ValueError, match="nothing trained before"):
        monitor.prepare()


@pytest.mark.parametrize(
    "y",
    [Y + 1, Y - 1, Y[:-1], Y + 0.5, np.zeros((12, 3)), np.zeros((12, 5, 1))],
)
def test_refuses_labels(y):
    monitor = GeneralizationMonitor(X, y)
    monitor.set_model(compiled(SpectralRNN(4)))
    with pytest.raises(ValueError, match="`y`.*Received"):
        monitor.prepare()


@pytest.mark.parametrize(
    "name,value",
    [
        ("margin", 0.0),
        ("input_bound", -1.0),
        ("quantile", 1.5),
        ("quantile", math.nan),
        ("examples", 0),
        ("confidence", 1.0),
        ("every", 0),
    ],
)
def test_refuses_arguments(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        GeneralizationMonitor(X, Y, **{name: value})
