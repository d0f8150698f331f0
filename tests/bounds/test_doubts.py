"""What the reader of models does not know for certain is a doubt."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import losses
from keras import ops

from tests.bounds.cases import curvatures
from tests.bounds.cases import quiet
from tests.helpers import assert_close

CROSSENTROPY = losses.CategoricalCrossentropy(from_logits=True)


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


def test_losses_that_are_not_known_for_certain():
    for options, certified in (
        ({}, True),
        ({"label_smoothing": 1.0}, True),
        ({"label_smoothing": 5.0}, False),
        ({"dtype": "float16"}, False),
        ({"dtype": "float64"}, True),
    ):
        loss = losses.CategoricalCrossentropy(from_logits=True, **options)
        assert quiet(after(), 2, loss=loss).certified == certified, options


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


def test_inputs_of_every_kind_are_checked():
    record = quiet(after(), 2, loss=CROSSENTROPY)
    for good in (np.ones((2, 2), bool), ops.ones((1, 2), "bfloat16"), [[0, 1]]):
        record.check_inputs(good)
    for bad in (1.0, None, np.ones((2, 2), complex), np.full((2, 2), "x")):
        with pytest.raises(ValueError, match="`x` must hold real numbers"):
            record.check_inputs(bad)
