"""Models and records that the tests of bounds share."""

import warnings

import keras
import numpy as np
from keras import layers
from keras import ops

from tf_spectral.bounds import LayerwiseSmoothness

NORMS = (1, 2, "inf")
CROSSENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)


def dense(*activations, width=4, **options):
    model = keras.Sequential([layers.Input((width,))])
    for activation in activations:
        model.add(layers.Dense(width, activation=activation, **options))
    return model


def curvatures(record, norms=None):
    """`p_i^2` without the offset, as NumPy."""
    norms = np.ones(len(record.shapes)) if norms is None else norms
    p2 = record.squared_bounds_from_norms(np.asarray(norms, "float64"))
    return ops.convert_to_numpy(p2) - record.offset


def constants(record):
    loss = record.get_config()["loss"]
    return loss["d1"], loss["d2"]


def quiet(model, *args, **options):
    """The record, with its warning caught."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LayerwiseSmoothness.from_model(model, *args, **options)


def read(inputs, outputs, q, loss=CROSSENTROPY, **options):
    """The record of a model between inputs and outputs."""
    model = keras.Model(inputs, outputs)
    return LayerwiseSmoothness.from_model(model, q, loss=loss, **options)
