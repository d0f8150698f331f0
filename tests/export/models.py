"""Models to export, and sequences that they read."""

import keras
import numpy as np
from keras import layers

from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import OrthogonalRNNCell
from tf_spectral.layers import SpectralDense
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell

RNG = np.random.default_rng(0)
FEATURES = 3


def sequential(*stack, time=None):
    return keras.Sequential([layers.Input((time, FEATURES)), *stack])


def functional(*stack):
    x = inputs = layers.Input((None, FEATURES), name="series")
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def inputs(batch=4, time=11):
    return RNG.normal(size=(batch, time, FEATURES)).astype("float32")


STACKS = {
    "spectral": lambda: [SpectralRNN(6, reflectors=2, name="rnn")],
    "spectral_initial_state": lambda: [
        SpectralRNN(6, activation="modrelu", trainable_initial_state=True)
    ],
    "cell": lambda: [layers.RNN(SpectralRNNCell(4, reflectors=4))],
    "cells": lambda: [
        layers.RNN([SpectralRNNCell(4), layers.LSTMCell(5), layers.GRUCell(3)])
    ],
    "orthogonal": lambda: [
        OrthogonalRNN(6, trainable_initial_state=True, return_sequences=True),
        layers.RNN(OrthogonalRNNCell(4, activation="tanh")),
    ],
    "spectral_dense": lambda: [
        SpectralDense(5, "relu", reflectors=1),
        SpectralRNN(4),
        SpectralDense(2, form="dense"),
    ],
    "simple": lambda: [layers.SimpleRNN(4, dropout=0.5)],
    "lstm": lambda: [layers.LSTM(4, recurrent_dropout=0.5)],
    "gru": lambda: [layers.GRU(4)],
    "stack": lambda: [
        layers.Dense(5),
        layers.BatchNormalization(),
        SpectralRNN(6, return_sequences=True),
        layers.LayerNormalization(),
        keras.Sequential([layers.Dropout(0.5), layers.Dense(4)]),
        layers.LSTM(4),
        layers.Reshape((2, 2)),
        layers.Flatten(),
        layers.Dense(2),
    ],
}


def bidirectional():
    return sequential(layers.Bidirectional(SpectralRNN(4)))


def values(x):
    return keras.ops.convert_to_numpy(x)
