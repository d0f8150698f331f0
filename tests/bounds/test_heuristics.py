"""Models without a theory: what is warned of, and what is refused."""

import re

import keras
import numpy as np
import pytest
from keras import layers
from keras import losses
from keras import ops

from tests.bounds.cases import constants
from tests.bounds.cases import curvatures
from tests.bounds.cases import dense
from tests.bounds.cases import quiet
from tests.helpers import assert_close
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.losses import SumOfSquares

# Heuristics.


def heuristic_layers():
    lstm = [layers.LSTM(3, name="culprit"), layers.Dense(2)]
    shared = layers.Dense(4, activation="tanh", name="culprit")
    return {
        "relu": [layers.Dense(4, activation="relu", name="culprit")],
        "leaky": [layers.Dense(4), layers.LeakyReLU(name="culprit")],
        "prelu": [layers.PReLU(name="culprit")],
        "nested": [
            layers.Dense(4, activation=layers.LeakyReLU(name="culprit"))
        ],
        "function": [layers.Dense(4, activation=ops.square, name="culprit")],
        "elu": [layers.ELU(0.5, name="culprit")],
        "norm": [layers.LayerNormalization(name="culprit")],
        "batch": [layers.BatchNormalization(name="culprit"), layers.Dense(3)],
        "max": [
            layers.Reshape((2, 2)),
            layers.MaxPooling1D(name="culprit"),
            layers.Flatten(),
        ],
        "lstm": [layers.Reshape((2, 2)), *lstm],
        "twice": [shared, shared],
        "transpose": [
            layers.Reshape((2, 2)),
            layers.Conv1DTranspose(3, 2, name="culprit"),
        ],
        "masked": [layers.Reshape((2, 2)), layers.Masking(name="culprit")],
    }


@pytest.mark.parametrize("name", heuristic_layers())
def test_one_warning_names_the_layers(name):
    outputs = inputs = layers.Input((4,))
    for layer in [layers.Dense(4), *heuristic_layers()[name], layers.Dense(2)]:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    with pytest.warns(UserWarning, match="culprit") as caught:
        record = LayerwiseSmoothness.from_model(model, loss="log_cosh")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not record.certified
    assert "culprit" in record.report()
    p2 = record.squared_bounds(model.trainable_variables)
    p2 = ops.convert_to_numpy(p2)
    assert p2.shape == (len(model.trainable_variables),)
    assert np.all(np.isfinite(p2)) and np.all(p2 > 1.0)


def test_attention_and_unknown_lengths():
    inputs = layers.Input((None, 4))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2)(x * 0.5))
    with pytest.warns(UserWarning, match="unknown length.*multi_head"):
        record = LayerwiseSmoothness.from_model(model, loss="log_cosh")
    p2 = ops.convert_to_numpy(record.squared_bounds(model.trainable_variables))
    assert np.all(np.isfinite(p2)) and np.all(p2 > 1.0)


def test_relu_is_linear_to_the_heuristic():
    relu = quiet(dense("relu", None), loss="log_cosh")
    linear = quiet(dense(None, None), loss="log_cosh")
    assert np.array_equal(curvatures(relu), curvatures(linear))
    assert linear.certified


def test_unknown_layers_pass_their_input_on():
    inputs = layers.Input((4,))
    x = layers.Dense(4, activation="tanh")(inputs)
    known = keras.Model(inputs, layers.Dense(2)(x))
    x = layers.EinsumDense("bi,io->bo", 4, bias_axes="o")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    record = quiet(model, loss="log_cosh")
    norms = [1.0, 1.0, 9.0, 9.0, 1.5, 1.0]
    plain = quiet(known, loss="log_cosh")
    expected = curvatures(plain, [1.0, 1.0, 1.5, 1.0])
    actual = curvatures(record, norms)
    assert_close(actual[[0, 1, 4, 5]], expected, 1e-12)
    # As a linear layer of gain 1: |x| <= 2, then the last kernel.
    unit = 1.5**2 * constants(record)[1]
    assert_close(actual[2:4], [4 * unit, unit], 1e-12)


def test_overflow_is_a_very_stiff_layer():
    model = dense(*["tanh"] * 6)
    record = quiet(model, loss="mse")
    norms = np.full(12, 1e30, "float32")
    p2 = ops.convert_to_numpy(record.squared_bounds_from_norms(norms))
    assert p2.dtype == np.float32
    assert np.all(np.isfinite(p2)) and p2[0] > 1e38 and p2[-1] < 1e3


# Refusals.


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def two_outputs():
    inputs = layers.Input((2,))
    return keras.Model(inputs, [layers.Dense(1)(inputs) for _ in range(2)])


REFUSED = {
    "unknown norm": (
        lambda: dense(None),
        {"norm": 3},
        "`norm` must be the exponent",
    ),
    "true norm": (
        lambda: dense(None),
        {"norm": True},
        "`norm` must be the exponent",
    ),
    "unbuilt": (
        lambda: keras.Sequential([layers.Dense(2)]),
        {},
        "must be built",
    ),
    "subclassed": (Subclassed, {}, "from_variables"),
    "no model": (lambda: 3, {}, "Sequential or Functional"),
    "outputs": (two_outputs, {}, "one output"),
    "not compiled": (lambda: dense(None), {"loss": None}, "`loss` is needed"),
    "unknown loss": (lambda: dense(None), {"loss": "mae"}, "no known bounds"),
    "misspelt loss": (lambda: dense(None), {"loss": "mze"}, "no known bounds"),
    "sum": (
        lambda: dense("tanh"),
        {"loss": SumOfSquares(reduction="sum")},
        "average over the batch",
    ),
    "no reduction": (
        lambda: dense("tanh"),
        {"loss": losses.Huber(reduction=None)},
        "average over the batch",
    ),
    "class axis": (
        lambda: dense(None),
        {"loss": losses.CategoricalCrossentropy(from_logits=True, axis=1)},
        "last axis",
    ),
    "no softmax": (
        lambda: dense("tanh"),
        {"loss": "categorical_crossentropy"},
        "reads probabilities.*Received: tanh in layer 'dense",
    ),
    "softmax for sigmoid": (
        lambda: dense("softmax"),
        {"loss": "binary_crossentropy"},
        "activation='sigmoid'",
    ),
    "unbounded squares": (
        lambda: dense(None),
        {"loss": "mse"},
        "no global bounds for unbounded outputs",
    ),
    "offset": (lambda: dense(None), {"offset": 0.0}, "`offset` must be"),
    "residual": (
        lambda: dense("tanh"),
        {"loss": "mse", "residual": -1.0},
        "`residual` must be",
    ),
    "weight": (
        lambda: dense(None),
        {"sample_weight_bound": float("inf")},
        "`sample_weight_bound` must be",
    ),
    "input norm": (
        lambda: dense(None),
        {"input_norm": -2.0},
        "`input_norm` must be",
    ),
    "input names": (
        lambda: dense(None),
        {"input_norm": {"nothing": 1.0}},
        "name every input",
    ),
    "input count": (
        lambda: dense(None),
        {"input_norm": [1.0, 2.0]},
        "one entry for each input",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    make, options, message = REFUSED[case]
    options = {"loss": "log_cosh", **options}
    with pytest.raises(ValueError, match=message) as caught:
        LayerwiseSmoothness.from_model(make(), **options)
    assert re.search(r"[Ee]xpected|[Rr]eceived", str(caught.value))
