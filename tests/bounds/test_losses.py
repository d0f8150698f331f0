"""Which losses are recognised, and bounds of their derivatives."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import losses

from tests import oracles_bounds as oracles
from tests.bounds.cases import NORMS
from tests.bounds.cases import constants
from tests.bounds.cases import curvatures
from tests.bounds.cases import dense
from tests.bounds.cases import quiet
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.losses import SumOfSquares

LOSSES = [
    ("sum_of_squares", "tanh", "sum_of_squares"),
    (SumOfSquares(), "tanh", "sum_of_squares"),
    ("mse", "tanh", "mean_squared_error"),
    (losses.MeanSquaredError(), "sigmoid", "mean_squared_error"),
    (losses.mean_squared_error, "tanh", "mean_squared_error"),
    ("categorical_crossentropy", "softmax", "crossentropy"),
    ("sparse_categorical_crossentropy", "softmax", "crossentropy"),
    (
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        None,
        "crossentropy",
    ),
    (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        "linear",
        "crossentropy",
    ),
    ("binary_crossentropy", "sigmoid", "binary_crossentropy"),
    (
        losses.BinaryCrossentropy(from_logits=True),
        None,
        "binary_crossentropy",
    ),
    (losses.Huber(delta=1.0), "linear", "huber"),
    ("log_cosh", None, "huber"),
]


@pytest.mark.parametrize("q", NORMS)
def test_constants_of_losses(q):
    for loss, last, kind in LOSSES:
        model = dense("tanh", last)
        record = LayerwiseSmoothness.from_model(model, q, loss=loss)
        assert record.certified
        expected = oracles.loss_constants(kind, 4, q)
        np.testing.assert_allclose(constants(record), expected, err_msg=kind)


@pytest.mark.parametrize(
    "loss,last",
    [
        (losses.CategoricalCrossentropy, "softmax"),
        (losses.BinaryCrossentropy, "sigmoid"),
    ],
)
def test_probabilities_and_logits_are_the_same_loss(loss, last):
    folded = LayerwiseSmoothness.from_model(dense("tanh", last), loss=loss())
    logits = LayerwiseSmoothness.from_model(
        dense("tanh", None), loss=loss(from_logits=True)
    )
    layered = keras.Sequential(
        [dense("tanh", None), layers.Activation(last)],
    )
    apart = LayerwiseSmoothness.from_model(layered, loss=loss())
    assert np.array_equal(curvatures(folded), curvatures(logits))
    assert np.array_equal(curvatures(folded), curvatures(apart))


def test_huber_delta():
    record = LayerwiseSmoothness.from_model(
        dense(None), 1, loss=losses.Huber(delta=3.0)
    )
    assert constants(record) == (0.75, 0.25)


@pytest.mark.parametrize("q", NORMS)
def test_means_over_positions(q):
    """Against the stacked loss: the gradient and Hessian of the mean."""
    model = keras.Sequential([layers.Input((5, 3)), layers.Dense(4)])
    n, p = 4, 5
    loss = losses.BinaryCrossentropy(from_logits=True)
    record = LayerwiseSmoothness.from_model(model, q, loss=loss)
    # Binary cross-entropy is the same mean over all entries.
    expected = oracles.loss_constants("binary_crossentropy", n * p, q)
    np.testing.assert_allclose(constants(record), expected)


def test_losses_that_are_not_known_for_certain():
    for options, certified in (
        ({}, True),
        ({"label_smoothing": 1.0}, True),
        ({"label_smoothing": 5.0}, False),
        ({"dtype": "float16"}, False),
        ({"dtype": "float64"}, True),
    ):
        loss = losses.CategoricalCrossentropy(from_logits=True, **options)
        assert quiet(dense(None), 2, loss=loss).certified == certified, options
