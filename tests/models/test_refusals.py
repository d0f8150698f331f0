"""spectralize and despectralize: what they leave, and what they refuse."""

import keras
import numpy as np
import pytest
from keras import layers as stock
from keras import ops

from tests.helpers import assert_close
from tests.layers.contract import normal
from tests.models.cases import TYPES
from tests.models.cases import make_mlp
from tests.models.cases import output
from tests.models.cases import recurrent
from tests.models.cases import shaken
from tests.models.cases import types
from tf_spectral import despectralize
from tf_spectral import layers as spectral
from tf_spectral import spectralize


def test_subclasses_and_spectral_layers_are_not_converted():
    class MyDense(stock.Dense):
        pass

    model = keras.Sequential(
        [
            keras.Input((4,)),
            MyDense(4, name="mine"),
            spectral.SpectralDense(4, name="spectral"),
            stock.Dense(4, name="stock"),
        ]
    )
    converted = spectralize(model)
    assert type(converted.get_layer("mine")) is MyDense
    x = normal(3, 4)
    assert_close(output(converted, x), output(model, x), 1e-5)
    back = despectralize(converted, exclude="^stock$")
    assert type(back.get_layer("spectral")) is stock.Dense
    assert type(back.get_layer("stock")) is spectral.SpectralDense
    for name in ("mine", "spectral"):
        with pytest.raises(ValueError, match=f"exactly.* is `{name}`"):
            spectralize(model, layers=["stock", name])


@pytest.mark.parametrize(
    "options,message",
    [
        ({"layers": "nothing"}, "no layer of this model"),
        ({"layers": ["first", "dropout"]}, r"`dropout` \(Dropout\)"),
        ({"layers": [stock.Conv3D]}, "Dense, Conv1D, Conv2D, SimpleRNN"),
        ({"layers": [3]}, "classes or names"),
        ({"layers": [stock.LSTM]}, "No layer was chosen"),
        ({"pattern": "lstm"}, "No layer was chosen"),
        ({"pattern": "["}, "regular expression"),
        ({"exclude": 3}, "regular expression"),
        ({"overrides": ["head"]}, "a dict from names"),
        ({"overrides": {"head": 3}}, "a dict of options"),
        ({"overrides": {"dropout": {}}}, "not converted"),
        ({"overrides": {"head": {"radius": 1}}}, r"`head` \(Dense\).*radius"),
        ({"sigma_mode": "round"}, r"`first` \(Dense\).*sigma_mode"),
        (
            {"overrides": {"head": {"sigma_center": 1.0, "sigma_radius": 0.1}}},
            r"`head` \(Dense\).*values in \[.*They would fit with sigma_center",
        ),
        (
            {"overrides": {"second": {"reflectors": 2}}},
            r"`second` \(Dense\).*relative residual",
        ),
    ],
)
def test_what_cannot_be_done_is_said(options, message):
    model = make_mlp()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        spectralize(model, **options)
    assert types(model, TYPES) == [stock.Dense] * 3
    for weight, after in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)


def test_the_gate_that_does_not_fit_is_named():
    model, _ = recurrent()
    with pytest.raises(ValueError, match=r"`lstm\S* \(LSTM\).*input_gate"):
        spectralize(shaken(model), sigma_center=1.0, sigma_radius=0.1)
    with pytest.raises(ValueError, match=r"`simple_rnn\S* \(SimpleRNN\)"):
        spectralize(
            model,
            layers=stock.SimpleRNN,
            sigma_center=2.0,
            sigma_radius=0.1,
        )


def test_models_that_are_no_graph_of_layers():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = stock.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    model(normal(3, 4))
    unbuilt = keras.Sequential([stock.Dense(2)])
    for convert in (spectralize, despectralize):
        with pytest.raises(ValueError, match="functional keras.Model"):
            convert(model)
        with pytest.raises(ValueError, match="functional keras.Model"):
            convert(stock.Dense(2))
        with pytest.raises(ValueError, match="must be built"):
            convert(unbuilt)
    # Called on data once, it is built.
    unbuilt(normal(3, 4))
    converted = spectralize(unbuilt)
    x = normal(5, 4)
    assert_close(output(converted, x), output(unbuilt, x), 1e-5)


def test_layers_that_cannot_be_cloned_are_named():
    class Odd(stock.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def call(self, x):
            return self.function(x)

        def get_config(self):
            return super().get_config()

    model = keras.Sequential(
        [keras.Input((3,)), stock.Dense(2), Odd(ops.relu, name="odd")]
    )
    with pytest.raises(ValueError, match=r"`odd` \(Odd\) cannot be cloned"):
        spectralize(model)


def test_a_trainable_activation_has_no_way_back():
    model = keras.Sequential(
        [keras.Input((3,)), spectral.SpectralDense(2, "modrelu", name="odd")]
    )
    with pytest.raises(ValueError, match="`odd` .*trainable activation"):
        despectralize(model)
