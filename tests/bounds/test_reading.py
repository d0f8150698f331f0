"""Reading models, or variables alone: what is certain, doubted, refused."""

import re

import keras
import numpy as np
import pytest
from keras import layers
from keras import losses
from keras import ops

from tests import oracles_bounds as oracles
from tests.bounds.cases import CROSSENTROPY
from tests.bounds.cases import NORMS
from tests.bounds.cases import constants
from tests.bounds.cases import curvatures
from tests.bounds.cases import dense
from tests.bounds.cases import quiet
from tests.bounds.cases import read
from tests.helpers import assert_close
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.bounds import reading
from tf_spectral.losses import SumOfSquares

# Losses of a model.


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


def test_a_loss_with_a_call_of_its_own_is_unknown():
    loss = losses.MeanSquaredError()
    loss.call = lambda y_true, y_pred: 100.0 * (y_true - y_pred) ** 2
    with pytest.raises(ValueError, match="`loss` has no known bounds"):
        quiet(dense("tanh"), loss=loss)


@pytest.mark.parametrize("q", [1, 2, "inf"])
def test_weights_of_positions_that_are_divided_out(q):
    """One position may have all the weight, and all the size of an input."""
    inputs = keras.Input((4, 2))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    loss = losses.CategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    largest = 8.0 ** {1: 1, 2: 1 / 2, "inf": 0}[q]
    x = np.zeros((1, 4, 2), "float32")
    x[0, 0, 0] = largest
    weights = ops.convert_to_tensor([[1.0, 0.0, 0.0, 0.0]])
    y = ops.convert_to_tensor(np.full((1, 4, 2), 0.5, "float32"))
    step = np.zeros((2, 2), "float32")
    step[0] = {1: [0.5, -0.5], 2: [0.5**0.5, -(0.5**0.5)], "inf": [1, -1]}[q]
    values = []
    for h in (-0.1, 0.0, 0.1):
        model.layers[-1].kernel.assign(h * step)
        values.append(float(loss(y, model(x), sample_weight=weights)))
    curvature = (values[0] - 2 * values[1] + values[2]) / 0.01
    bound = curvatures(quiet(model, q, loss=loss))[0]
    assert 0.2 * bound < curvature <= bound


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
    moved = keras.Sequential([dense("tanh"), layers.Rescaling(2.0, -3.0)])
    assert residual(moved, norm="inf") == (6.0, True)
    joined = layers.Concatenate()([halves[0], layers.Rescaling(5.0)(halves[1])])
    assert residual(keras.Model(inputs, joined)) == (6.0, True)
    assert residual(dense(None), residual=5.0) == (5.0, False)


def test_softmax_before_squares():
    record = LayerwiseSmoothness.from_model(
        dense("softmax"), "inf", loss="mse", residual=1.0
    )
    d1, d2 = constants(record)
    assert_close(curvatures(record)[1], d2 / 4 + 2 * d1, 1e-12)
    assert record.certified


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


# Norms of inputs.


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


@pytest.mark.parametrize("q", [1, 2, "inf"])
def test_pixels_are_read_raw_and_rescaled(q):
    """Entries in [0, 255] pass the check, and no bound is below them."""
    inputs = keras.Input((2,), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    models = [
        keras.Model(inputs, layers.Dense(2)(x)),
        keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([x, inputs]))),
    ]
    pixels = np.array([[0, 255], [255, 255]], "uint8")
    sizes = []
    for model in models:
        record = quiet(model, q, loss=CROSSENTROPY)
        assert record.certified
        record.check_inputs(pixels)
        record.check_inputs(pixels[:0])
        for wrong in ([[0.0, 270.0]], [[-10.0, -10.0]]):
            with pytest.raises(ValueError, match="'pixels'"):
                record.check_inputs(np.array(wrong))
        kernel, bias = curvatures(record)
        sizes.append((kernel / bias) ** 0.5)
    n = {1: 2.0, 2: 2**0.5, "inf": 1.0}[q]
    joined = {1: n + 255 * n, 2: n * (1 + 255**2) ** 0.5, "inf": 255.0}[q]
    assert_close(sizes, [n, joined], 1e-9)


# Frozen weights.


@pytest.mark.usefixtures("float64_layers")
def test_frozen_layers_are_constants():
    inputs = layers.Input((3,))
    first, last = layers.Dense(4, activation="softplus"), layers.Dense(2)
    outputs = last(first(inputs))
    rng = np.random.default_rng(0)
    for v in first.weights + last.weights:
        v.assign(rng.normal(size=v.shape))
    weights = [ops.convert_to_numpy(v) for v in first.weights + last.weights]
    for q in NORMS:
        record = read(inputs, outputs, q)
        everything = curvatures(record, [oracles.norm(w, q) for w in weights])
        last.trainable = False
        record = read(inputs, outputs, q)
        assert record.needed_norms == ()
        assert_close(curvatures(record, [0, 0]), everything[:2], 1e-8)
        last.trainable, first.trainable = True, False
        record = read(inputs, outputs, q)
        assert record.needed_norms == ()
        assert_close(curvatures(record, [0, 0]), everything[2:], 1e-8)
        first.trainable = True


# What is not known for certain is a doubt.


def after(*steps, shape=(2,), batch=None):
    """A model with these layers or functions between two dense layers."""
    inputs = keras.Input(batch_shape=(batch, *shape))
    x = layers.Dense(2, "tanh")(inputs)
    for step in steps:
        x = step(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def flat(x):
    return ops.reshape(x, (-1,))


def column(x):
    return ops.reshape(x, (-1, 1))


def patched(x):
    """A layer whose `call` is not that of its class."""
    layer = layers.Dense(2)
    outputs = layer(x)
    layer.call = lambda inputs: 100.0 * inputs
    return outputs


def tokens(x):
    return layers.Flatten()(layers.Embedding(9, 3)(x))


def patched_sum(x):
    layer = layers.Add()
    outputs = layer([x, x])
    layer.call = lambda inputs: 100.0 * inputs[0]
    return outputs


def patched_model(x):
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    outputs = inner(x)
    inner.call = lambda inputs, **options: 100.0 * inputs
    return outputs


def penalised_model(x):
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    inner.activity_regularizer = keras.regularizers.L2(100.0)
    return inner(x)


def penalised_beside(layer):
    """The first of two outputs; Keras computes the other one too."""

    def step(x):
        inputs = keras.Input((2,))
        hidden = layers.Dense(2, "tanh")(inputs)
        inner = keras.Model(inputs, [layers.Dense(2)(hidden), layer(hidden)])
        return inner(x)[0]

    return step


def masked_by_a_list(x):
    return layers.Softmax()(x, mask=[[True, False]])


def half_precision(x):
    return ops.cast(ops.tanh(ops.cast(x, "float16")), "float32")


class OwnLoss(keras.Model):
    def compute_loss(self, *args, **kwargs):
        return 100.0 * super().compute_loss(*args, **kwargs)


class OwnInnerLoss(keras.Model):
    def _compute_loss(self, *args, **kwargs):
        return 100.0 * super()._compute_loss(*args, **kwargs)


def own_loss(kind=OwnLoss):
    inputs = keras.Input((2,))
    return kind(inputs, layers.Dense(2)(inputs))


def penalised_whole():
    model = after()
    model.activity_regularizer = keras.regularizers.L2(100.0)
    return model


class AddsToTheLoss(layers.Layer):
    def call(self, inputs):
        self.add_loss(100.0 * ops.sum(inputs**2))
        return inputs


def one_distribution_over_the_batch():
    inputs = keras.Input((2,))
    return keras.Model(inputs, flat(layers.Dense(1)(inputs)))


CONSTANT = np.full((3, 2), 100.0, "float32")
DOUBTFUL = {
    "tokens that are trained": lambda: after(tokens),
    "softmax along the batch": lambda: after(
        layers.Dense(1), flat, layers.Activation("softmax"), column
    ),
    "softmax layer along the batch": lambda: after(
        layers.Dense(1), flat, layers.Softmax(), column
    ),
    "rescaling that repeats": lambda: after(
        layers.Rescaling(np.ones((6, 1))), shape=(1, 2)
    ),
    "offset that repeats": lambda: after(
        layers.Rescaling(1.0, np.ones((6, 1))), shape=(1, 2)
    ),
    "constant beside": lambda: after(
        lambda x: ops.concatenate([x, CONSTANT], 1), batch=3
    ),
    "constant added": lambda: after(lambda x: layers.Add()([x, CONSTANT[:1]])),
    "examples side by side": lambda: after(
        lambda x: ops.concatenate([x, x], 0)
    ),
    "call of its own": lambda: after(patched),
    "call of its own in a sum": lambda: after(patched_sum),
    "call of its own in a model": lambda: after(patched_model),
    "penalty of a model within": lambda: after(penalised_model),
    "penalty of the model": penalised_whole,
    "penalty of an output that is not read": lambda: after(
        penalised_beside(
            layers.Dense(1, activity_regularizer=keras.regularizers.L2(9.0))
        )
    ),
    "penalty of a linear activation beside": lambda: after(
        penalised_beside(layers.ActivityRegularization(l2=100.0))
    ),
    "loss added by an output that is not read": lambda: after(
        penalised_beside(AddsToTheLoss())
    ),
    "mask in a list": lambda: after(masked_by_a_list),
    "half precision between": lambda: after(half_precision),
    "loss of its own": own_loss,
    "loss of its own, by Keras' older name": lambda: own_loss(OwnInnerLoss),
    "classes along the batch": one_distribution_over_the_batch,
}


def test_models_that_are_not_known_for_certain():
    certified = [
        name
        for name, make in DOUBTFUL.items()
        if quiet(make(), 2, loss=CROSSENTROPY).certified
    ]
    assert certified == []
    # The models around them are certain.
    beside = after(penalised_beside(layers.Dense(1)))
    assert quiet(beside, loss=CROSSENTROPY).certified
    assert quiet(after(layers.Rescaling([2.0, 3.0])), loss="log_cosh").certified


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


def test_a_steep_leaky_relu_is_as_steep_as_that():
    def before(layer):
        model = keras.Sequential([dense("tanh"), layer, layers.Dense(2)])
        return curvatures(quiet(model, loss="log_cosh"))

    steep = before(layers.LeakyReLU(3.0))
    assert_close(steep, before(layers.Rescaling(3.0)), 1e-12)
    flat = before(layers.LeakyReLU(0.3))
    assert_close(flat, before(layers.Rescaling(1.0)), 1e-12)


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


# What is refused.


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


def test_refusals():
    for make, options, message in REFUSED.values():
        options = {"loss": "log_cosh", **options}
        with pytest.raises(ValueError, match=message) as caught:
            LayerwiseSmoothness.from_model(make(), **options)
        assert re.search(r"[Ee]xpected|[Rr]eceived", str(caught.value))


# Guesses from variables.


@pytest.mark.parametrize("q", NORMS)
def test_the_guess_is_exact_for_tanh_and_logits(q):
    model = keras.Sequential([layers.Input((6,))])
    for units in (5, 4):
        model.add(layers.Dense(units, activation="tanh"))
    model.add(layers.Dense(3))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    exact = LayerwiseSmoothness.from_model(model, q, loss=loss)
    variables = model.trainable_variables
    values = [ops.convert_to_tensor(v) for v in variables]
    norms = np.linspace(0.5, 2.0, 6)
    expected = exact.squared_bounds_from_norms(norms)
    for given in (variables, values):
        guess = LayerwiseSmoothness.from_variables(given, q)
        assert not guess.certified
        assert guess.needed_norms == exact.needed_norms
        assert_close(
            ops.convert_to_numpy(guess.squared_bounds_from_norms(norms)),
            ops.convert_to_numpy(expected),
            1e-9,
        )
    assert "guessed" in guess.report()


class Named:
    def __init__(self, path, *shape):
        self.path, self.shape = path, shape


def test_groups_of_variables():
    def sizes(*variables):
        return [len(group) for _, group in reading._group_by_layer(variables)]

    kernel = Named("a/kernel", 3, 3)
    bias = Named("a/bias", 3)
    recurrent = Named("a/recurrent_kernel", 3, 3)
    assert sizes(kernel, recurrent, bias, Named("b/kernel", 3, 2)) == [3, 1]
    # Paths repeat in a Bidirectional layer that was loaded.
    assert sizes(kernel, bias, kernel, bias) == [2, 2]
    bare = [Named("", 3, 3), Named("", 3), Named("", 3, 2), Named("", 2, 2)]
    assert sizes(*bare) == [2, 1, 1]
    assert sizes(Named("", 3), Named("", 3, 3)) == [1, 1]


def test_any_variable_gets_a_bound():
    inputs = layers.Input((5, 3))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
    x = layers.LayerNormalization()(x)
    x = layers.Conv1D(3, 2)(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    variables = [*model.trainable_variables, keras.Variable(1.0)]
    for q in NORMS:
        record = LayerwiseSmoothness.from_variables(variables, q)
        p2 = ops.convert_to_numpy(record.squared_bounds(variables))
        assert p2.shape == (len(variables),)
        assert np.all(np.isfinite(p2)) and np.all(p2 > 1.0)
        config = record.get_config()
        assert LayerwiseSmoothness.from_config(config).get_config() == config
