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


class OwnLoss(keras.Model):
    def compute_loss(self, *args, **kwargs):
        return 100.0 * super().compute_loss(*args, **kwargs)


def own_loss():
    inputs = keras.Input((2,))
    return OwnLoss(inputs, layers.Dense(2)(inputs))


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
    "loss of its own": own_loss,
    "classes along the batch": one_distribution_over_the_batch,
}


def test_models_that_are_not_known_for_certain():
    certified = [
        name
        for name, make in DOUBTFUL.items()
        if quiet(make(), 2, loss=CROSSENTROPY).certified
    ]
    assert certified == []
    # The model around them is certain.
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
