"""The models that the tests of spectralize convert."""

import keras
import numpy as np
from keras import layers as stock
from keras import ops

from tests.helpers import BACKEND
from tests.layers.contract import normal
from tf_spectral import layers as spectral

# Keras rounds products of float64 to float32 on the others.
TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
DTYPES = ["float32", "float64"] if BACKEND == "tensorflow" else ["float32"]
TYPES = {
    stock.Dense: spectral.SpectralDense,
    stock.Conv1D: spectral.SpectralConv1D,
    stock.Conv2D: spectral.SpectralConv2D,
    stock.SimpleRNN: spectral.SpectralRNN,
    stock.LSTM: spectral.SpectralLSTM,
    stock.GRU: spectral.SpectralGRU,
}


def mlp():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            stock.Dense(8, "relu", name="first", kernel_regularizer="l2"),
            stock.BatchNormalization(),
            stock.Dropout(0.5),
            stock.Dense(8, "tanh", use_bias=False, name="second"),
            stock.Dense(3, "softmax", name="head"),
        ],
        name="mlp",
    )
    return model, normal(5, 6)


def cnn():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            stock.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            stock.Conv2D(4, (1, 2), groups=2),
            stock.Reshape((12, 4)),
            stock.Conv1D(3, 3, padding="causal", dilation_rate=2),
            stock.Flatten(),
            stock.Dense(2),
        ]
    )
    return model, normal(3, 8, 8, 2)


def recurrent():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            stock.Embedding(9, 4, mask_zero=True),
            stock.LSTM(5, return_sequences=True, go_backwards=True),
            stock.GRU(4, return_sequences=True, recurrent_dropout=0.5),
            stock.SimpleRNN(3, dropout=0.5),
            stock.Dense(2),
        ]
    )
    tokens = [[3, 0, 4, 5, 0, 0], [0, 1, 2, 2, 7, 8], [1, 0, 0, 0, 0, 0]]
    return model, np.array(tokens, "int32")


def residual():
    x = keras.Input((4,), name="x")
    shared = stock.Dense(4, "tanh", name="shared")
    y = x
    for _ in range(3):
        y = y + 0.5 * shared(y)
    y = stock.Concatenate()([y, stock.Lambda(lambda t: 2 * t)(x)])
    outputs = {"head": stock.Dense(2, name="head")(y), "body": y}
    return keras.Model(x, outputs, name="residual"), normal(5, 4)


def nested():
    inner = keras.Input((4,))
    block = stock.Dense(4, "relu", name="dense")(inner)
    block = keras.Model(inner, block + inner, name="block")
    twice = [block, stock.Dense(4, name="dense")]
    twice = keras.Sequential(twice, name="twice")
    x, y = keras.Input((4,)), keras.Input((4,))
    outputs = twice(block(x)) + block(y)
    return keras.Model([x, y], outputs), [normal(5, 4), normal(5, 4, seed=1)]


def wrapped():
    inner = keras.Sequential([keras.Input((3,)), stock.Dense(4, "relu")])
    x = keras.Input((5, 3))
    y = stock.TimeDistributed(inner, name="each")(x)
    y = stock.TimeDistributed(stock.Dense(4))(y)
    y = stock.Masking()(y)
    y = stock.Bidirectional(stock.LSTM(3, return_sequences=True))(y)
    y = stock.Bidirectional(
        stock.GRU(2),
        merge_mode="sum",
        backward_layer=stock.SimpleRNN(2, go_backwards=True),
        name="both",
    )(y)
    return keras.Model(x, y), normal(2, 5, 3)


def with_state():
    x = keras.Input((4, 3))
    sequences, h, c = stock.LSTM(5, return_sequences=True, return_state=True)(x)
    y = stock.LSTM(5)(sequences, initial_state=[h, c])
    return keras.Model(x, [y, h]), normal(2, 4, 3)


MODELS = (mlp, cnn, recurrent, residual, nested, wrapped, with_state)


def shaken(model):
    """The model with all weights off their start, variances positive."""
    generator = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(weight + 0.3 * generator.random(weight.shape))
    return model


def output(model, x):
    outputs = keras.tree.flatten(model(x, training=False))
    return np.concatenate([ops.convert_to_numpy(t) for t in outputs], axis=-1)


def types(model, kinds):
    """The kinds of layers in a model that are among `kinds`."""
    flat = model._flatten_layers()
    return [type(layer) for layer in flat if type(layer) in kinds]


def make_mlp():
    return shaken(mlp()[0])
