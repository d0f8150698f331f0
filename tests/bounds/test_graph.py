"""The calls of a model, sub-models entered."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.bounds.cases import CROSSENTROPY
from tests.bounds.cases import curvatures
from tests.bounds.cases import read
from tf_spectral.bounds import LayerwiseSmoothness

pytestmark = pytest.mark.usefixtures("float64_layers")


def test_sub_models_are_entered():
    inputs = layers.Input((3,))
    inner = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, activation="tanh")]
    )
    nested = read(inputs, layers.Dense(2)(inner(inputs)), 2)
    x = layers.Dense(4, activation="tanh")(inputs)
    flat = read(inputs, layers.Dense(2)(x), 2)
    sequential = keras.Sequential(
        [
            layers.Input((3,)),
            layers.Dense(4, activation="tanh"),
            layers.Dense(2),
        ]
    )
    direct = LayerwiseSmoothness.from_model(sequential, loss=CROSSENTROPY)
    norms = [0.3, 0.4, 0.5, 0.6]
    expected = curvatures(flat, norms)
    assert np.array_equal(curvatures(nested, norms), expected)
    assert np.array_equal(curvatures(direct, norms), expected)
    assert nested.certified


def between(*pieces):
    """A record of dense layers around pieces, and its numbers.

    A piece is a layer or a function of a tensor; all norms are different.
    """
    inputs = layers.Input((4, 2))
    x = layers.Dense(2, "tanh")(inputs)
    for piece in pieces:
        x = piece(x)
    outputs = layers.Dense(2)(layers.Flatten()(x))
    record = read(inputs, outputs, 2)
    assert record.certified
    norms = np.linspace(0.5, 2.0, len(record.shapes))
    return curvatures(record, norms)


def rescaled(factor):
    return layers.Rescaling(factor)


def sub_model(build, shape=(4, 2)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, build(inputs))


def test_shapes_are_those_of_the_call():
    """A sub-model that was built for unknown lengths."""

    def build(x):
        return layers.AveragePooling1D(2, 1, "same")(
            layers.Conv1D(2, 3, padding="same", activation="tanh")(x)
        )

    expected = between(build)
    assert np.array_equal(between(sub_model(build)), expected)
    assert np.array_equal(between(sub_model(build, (None, 2))), expected)
    nested = sub_model(sub_model(build, (None, 2)))
    assert np.array_equal(between(nested), expected)


def test_the_output_that_is_used():
    inner = keras.Input((4, 2))
    outputs = [inner, rescaled(100.0)(inner), rescaled(3.0)(inner)]
    block = keras.Model(inner, outputs)
    for i, factor in enumerate((1.0, 100.0, 3.0)):
        found = between(lambda x, i=i: block(x)[i])
        assert np.array_equal(found, between(rescaled(factor)))
    named = keras.Model(inner, dict(zip("abc", outputs)))
    assert np.array_equal(
        between(lambda x: named(x)["b"]), between(rescaled(100.0))
    )


def test_inputs_are_paired_as_keras_pairs_them():
    """A list by position, a dictionary by name."""

    def difference(a, b):
        return layers.Subtract()([rescaled(100.0)(a), b])

    def flat(x):
        return difference(x, rescaled(0.01)(x))

    expected = between(flat)
    first, second = (keras.Input((4, 2), name=name) for name in "ab")
    outputs = difference(first, second)
    for inputs, passed in (
        ([first, second], lambda x, y: [x, y]),
        ([second, first], lambda x, y: [y, x]),
        ([second, first], lambda x, y: {"a": x, "b": y}),
        ({"b": second, "a": first}, lambda x, y: {"b": y, "a": x}),
    ):
        block = keras.Model(inputs, outputs)
        found = between(
            lambda x, block=block, passed=passed: block(
                passed(x, rescaled(0.01)(x))
            )
        )
        assert np.array_equal(found, expected)


def test_what_does_not_lead_to_the_output_is_not_read():
    inputs = layers.Input((3,))
    x = layers.Dense(4, "tanh")(inputs)
    aside = layers.Dense(4, "relu")
    aside(x)
    record = read(inputs, layers.Dense(2)(x), 2)
    assert record.certified and len(record.shapes) == 4
