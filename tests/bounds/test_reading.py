"""Reading models: losses, regularizers, norms of inputs."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import losses

from tests import oracles_bounds as oracles
from tests.bounds.cases import constants
from tests.bounds.cases import curvatures
from tests.bounds.cases import dense
from tests.bounds.cases import quiet
from tests.helpers import assert_close
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.losses import SumOfSquares

NORMS = (1, 2, "inf")


# Losses.


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
@pytest.mark.parametrize("loss,last,kind", LOSSES)
def test_constants_of_losses(loss, last, kind, q):
    record = LayerwiseSmoothness.from_model(dense("tanh", last), q, loss=loss)
    assert record.certified
    np.testing.assert_allclose(
        constants(record), oracles.loss_constants(kind, 4, q)
    )


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


def test_compiled_losses_and_their_weights():
    model = dense("tanh", "sigmoid")
    model.compile(loss="mse")
    plain = LayerwiseSmoothness.from_model(model)
    model.compile(loss=["mse"], loss_weights=[3.0])
    thrice = LayerwiseSmoothness.from_model(model)
    # The weights of the training, also beside a loss that is given.
    given = LayerwiseSmoothness.from_model(model, loss="mse")
    weighted = LayerwiseSmoothness.from_model(
        dense("tanh", "sigmoid"), loss="mse", sample_weight_bound=3.0
    )
    assert_close(curvatures(thrice), 3 * curvatures(plain), 1e-12)
    assert_close(curvatures(given), curvatures(thrice), 1e-12)
    assert_close(curvatures(weighted), curvatures(thrice), 1e-12)


def test_weights_that_the_reduction_divides_out():
    """The weighted mean of curvatures is at most the largest of them."""
    records = [
        LayerwiseSmoothness.from_model(
            dense("tanh", "sigmoid"),
            loss=losses.MeanSquaredError(reduction=reduction),
            sample_weight_bound=bound,
        )
        for reduction, bound in (
            ("sum_over_batch_size", 1.0),
            ("mean_with_sample_weight", 0.01),
            ("mean_with_sample_weight", 5.0),
        )
    ]
    for record in records[1:]:
        assert_close(curvatures(record), curvatures(records[0]), 1e-12)


def test_residuals():
    loss = SumOfSquares()

    def residual(model, **options):
        record = quiet(model, loss=loss, **options)
        return record.get_config()["loss"]["residual"], record.certified

    inputs = layers.Input((2,))
    halves = [layers.Dense(3, activation="tanh")(inputs) for _ in range(2)]
    wide = keras.Model(inputs, layers.Add()(halves))
    assert residual(dense("tanh")) == (2.0, True)
    assert residual(wide) == (3.0, True)
    assert residual(dense("tanh"), residual=1) == (1.0, True)
    assert residual(dense(None), residual=5.0) == (5.0, False)


def test_softmax_before_squares():
    record = LayerwiseSmoothness.from_model(
        dense("softmax"), "inf", loss="mse", residual=1.0
    )
    d1, d2 = constants(record)
    assert_close(curvatures(record)[1], d2 / 4 + 2 * d1, 1e-12)
    assert record.certified


@pytest.mark.parametrize("q", NORMS)
def test_derivatives_of_softmax(q):
    """S1 and S2 of softmax, found by search."""
    rng = np.random.default_rng(0)
    record = LayerwiseSmoothness.from_model(
        dense("softmax", None), q, loss="log_cosh"
    )
    node = record.get_config()["nodes"][2]
    order = np.inf if q == "inf" else q
    slope = bend = 0.0
    for _ in range(300):
        logits = rng.choice([0.0, 1.0, 5.0], 3) * rng.normal(size=3)
        p = np.exp(logits) / np.exp(logits).sum()
        u, v = rng.choice([-1.0, 0.0, 1.0], (2, 3))
        size = np.linalg.norm(u, order) * np.linalg.norm(v, order)
        if size == 0:
            continue
        du, dv = u - p @ u, v - p @ v
        first = np.linalg.norm(p * du, order) / np.linalg.norm(u, order)
        second = np.linalg.norm(p * (du * dv - p @ (du * dv)), order)
        slope, bend = max(slope, first), max(bend, second / size)
    assert 0.5 * node["slope"] < slope <= node["slope"] + 1e-12
    assert 0.05 * node["curvature"] < bend <= node["curvature"]


# Regularizers.


@pytest.mark.parametrize("q,width", [(1, 3), (2, 2), ("inf", 2)])
def test_l2_adds_its_hessian(q, width):
    def record(regularizer):
        model = keras.Sequential(
            [
                layers.Input((3,)),
                layers.Dense(
                    2,
                    kernel_regularizer=regularizer,
                    bias_regularizer=regularizer,
                ),
            ]
        )
        return LayerwiseSmoothness.from_model(model, q, loss="log_cosh")

    bias = 2 if q == "inf" else 1
    for l2 in (keras.regularizers.L2(0.5), keras.regularizers.L1L2(0, 0.5)):
        extra = curvatures(record(l2)) - curvatures(record(None))
        # lambda = 2 l2 = 1, times the largest <u, v>.
        assert_close(extra, [width, bias], 1e-9)


def test_other_regularizers_are_no_bounds():
    model = dense(None, kernel_regularizer=keras.regularizers.L1(0.1))
    with pytest.warns(UserWarning, match="dense.*regularizer other than L2"):
        record = LayerwiseSmoothness.from_model(model, loss="log_cosh")
    assert not record.certified
    model = dense("tanh", activity_regularizer="l2")
    with pytest.warns(UserWarning, match="activity regularizer"):
        LayerwiseSmoothness.from_model(model, loss="mse")


def test_norms_of_several_inputs():
    a, b = layers.Input((3,), name="a"), layers.Input((2,), name="b")
    outputs = layers.Dense(2)(layers.Concatenate()([a, b]))
    model = keras.Model([a, b], outputs)

    def first(input_norm):
        record = LayerwiseSmoothness.from_model(
            model, loss="log_cosh", input_norm=input_norm
        )
        return curvatures(record)[0] * 2

    np.testing.assert_allclose(first(None), 5.0)
    np.testing.assert_allclose(first({"b": 4.0, "a": 3.0}), 25.0)
    np.testing.assert_allclose(first([1.0, 2.0]), 5.0)
    np.testing.assert_allclose(first(1.0), 2.0)


def test_inputs_are_checked_against_the_record():
    first, second = layers.Input((3,), name="a"), layers.Input((2,), name="b")
    tokens = layers.Input((2,), dtype="int32", name="tokens")
    embedded = layers.Flatten()(layers.Embedding(9, 2)(tokens))
    x = layers.Concatenate()([first, second, embedded])
    model = keras.Model([first, second, tokens], layers.Dense(2)(x))
    record = LayerwiseSmoothness.from_model(
        model,
        2,
        loss=losses.CategoricalCrossentropy(from_logits=True),
        input_norm={"a": 2.0, "b": None, "tokens": None},
    )
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (2, 4, 3))
    data = {"a": a, "b": b[:, :2], "tokens": np.full((4, 2), 8)}
    for again in (record, LayerwiseSmoothness(**record.get_config())):
        again.check_inputs(data)
        again.check_inputs([data["a"], data["b"], data["tokens"]])
        for name, value in (("a", 2.1), ("b", -1.5), ("b", np.nan)):
            poison = {k: np.array(v, "float64") for k, v in data.items()}
            poison[name][2] = value
            with pytest.raises(ValueError, match=rf"'{name}'.*x\[2\]"):
                again.check_inputs(poison)
        for wrong in (a, [a], {"a": a}):
            with pytest.raises(ValueError, match="`x` must"):
                again.check_inputs(wrong)
        with pytest.raises(ValueError, match="real numbers"):
            again.check_inputs({**data, "a": np.full((4, 3), "x")})
