"""SpectralRNN from and to SimpleRNN."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import assert_close
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import normal
from tests.layers.spectral_rnn import FEATURES
from tests.layers.spectral_rnn import UNITS
from tests.layers.spectral_rnn import array
from tests.layers.spectral_rnn import make
from tests.layers.spectral_rnn import randomize
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import SpectralRNN


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(contract.DTYPE):
        yield


@pytest.mark.parametrize("use_bias", (True, False))
def test_from_stock_and_back(use_bias):
    simple = keras.layers.SimpleRNN(
        UNITS,
        use_bias=use_bias,
        activation="sigmoid",
        return_sequences=True,
        go_backwards=True,
        recurrent_dropout=0.1,
        name="simple",
    )
    simple.build((None, None, FEATURES))
    simple.set_weights(
        [normal(*w.shape, seed=i) for i, w in enumerate(simple.weights)]
    )
    layer = SpectralRNN.from_stock(simple, sigma_mode="free")
    assert layer.name == "simple"
    assert layer.recurrent_dropout == 0.1
    x = normal(4, 5, FEATURES)
    assert_close(array(layer(x)), array(simple(x)), CLOSE)
    matrix = array(simple.cell.recurrent_kernel)
    assert_close(array(layer.matrix()), matrix, CLOSE)
    again = layer.to_stock()
    assert type(again) is keras.layers.SimpleRNN
    expected = {**simple.get_config(), "recurrent_initializer": None}
    assert {**again.get_config(), "recurrent_initializer": None} == expected
    for a, b in zip(again.weights, simple.weights, strict=True):
        assert_close(array(a), array(b), CLOSE)


def test_what_was_set_later_goes_over():
    """An activation of `None` is the identity; `use_bias` came too late."""
    x = normal(2, 5, 3)
    for layer in (SpectralRNN(4), OrthogonalRNN(4, use_bias=True)):
        layer.build(x.shape)
        layer.cell.activation, layer.cell.use_bias = None, False
        layer.cell.bias.assign(ops.ones((4,)))
        expected = ops.convert_to_numpy(layer(x))
        unrolled = type(layer).from_config(
            {**layer.get_config(), "unroll": True}
        )
        assert unrolled.activation is keras.activations.linear
        stock = layer.to_stock()
        assert_close(ops.convert_to_numpy(stock(x)), expected, 1e-5)
        stock.cell.activation, stock.cell.use_bias = None, False
        back = type(layer).from_stock(stock)
        assert_close(ops.convert_to_numpy(back(x)), expected, 1e-5)


def test_from_stock_with_bounds():
    options = {"sigma_mode": "sigmoid", "sigma_radius": 0.3}
    source = randomize(make(**options))
    layer = SpectralRNN.from_stock(source.to_stock(), **options)
    actual = array(layer.matrix())
    assert_close(actual, array(source.matrix()), max(CLOSE, 1e-6))


def test_from_stock_with_as_many_reflectors_as_the_rank():
    simple = keras.layers.SimpleRNN(UNITS)
    simple.build((None, None, FEATURES))
    matrix = normal(UNITS, 2) @ normal(2, UNITS, seed=1)
    simple.cell.recurrent_kernel.assign(matrix)
    layer = SpectralRNN.from_stock(simple, reflectors=2)
    assert layer.cell.svd.reflectors == (2, 2)
    assert_close(array(layer.matrix()), matrix, CLOSE)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: SpectralRNN(UNITS),
        lambda: make(activation="modrelu"),
        lambda: make(trainable_initial_state=True),
    ],
    ids=("unbuilt", "modrelu", "initial_state"),
)
def test_to_stock_refuses(layer):
    with pytest.raises(
        ValueError, match="(?s)(built|activation|initial state).*Received"
    ):
        layer().to_stock()


def stock_with(kernel, **options):
    simple = keras.layers.SimpleRNN(UNITS, **options)
    simple.build((None, None, FEATURES))
    simple.cell.recurrent_kernel.assign(kernel)
    return simple


@pytest.mark.parametrize("sigma_mode", ("sigmoid", "clip", "free"))
def test_from_stock_chooses_bounds_that_hold(sigma_mode):
    simple = stock_with(0.3 * normal(UNITS, UNITS), activation="sigmoid")
    layer = SpectralRNN.from_stock(simple, sigma_mode=sigma_mode)
    x = normal(4, 5, FEATURES)
    assert_close(array(layer(x)), array(simple(x)), max(CLOSE, 1e-6))
    again = layer.to_stock()
    assert type(again) is keras.layers.SimpleRNN
    assert_close(array(again(x)), array(simple(x)), max(CLOSE, 1e-6))


def test_from_stock_of_an_orthogonal_matrix_centers_at_one():
    orthogonal, _ = np.linalg.qr(normal(UNITS, UNITS))
    layer = SpectralRNN.from_stock(stock_with(orthogonal))
    config = layer.get_config()
    assert_close(config["sigma_center"], 1.0, 1e-5)
    assert_close(config["sigma_radius"], 0.01, 1e-5)


@pytest.mark.parametrize(
    "options,name",
    [
        ({"sigma_mode": "fixed"}, "sigma_mode"),
        ({"reflectors": 2}, "reflectors"),
        ({"sigma_center": 1.0, "sigma_radius": 0.1}, "sigma_radius"),
        ({"sigma_center": 0.1}, "sigma_center"),
        ({"sigma_center": "auto"}, "sigma_center"),
    ],
)
def test_from_stock_refuses_what_it_cannot_hold(options, name):
    simple = stock_with(normal(UNITS, UNITS))
    with pytest.raises(ValueError, match=name) as error:
        SpectralRNN.from_stock(simple, **options)
    assert "Received" in str(error.value)


def test_from_stock_refuses_other_layers():
    class Subclass(keras.layers.SimpleRNN):
        pass

    subclass = Subclass(UNITS)
    subclass.build((None, None, FEATURES))
    dense = keras.layers.Dense(UNITS)
    dense.build((None, FEATURES))
    for layer in (subclass, keras.layers.SimpleRNN(UNITS), dense, None):
        with pytest.raises(ValueError, match="(?s)`layer`.*Received"):
            SpectralRNN.from_stock(layer)


def test_from_stock_by_the_nearest_fit():
    simple = keras.layers.SimpleRNN(UNITS)
    simple.build((None, None, FEATURES))
    kernel = normal(UNITS, UNITS)
    simple.cell.recurrent_kernel.assign(kernel)
    layer = SpectralRNN.from_stock(simple, reflectors=2, exact=False)
    error = np.linalg.norm(array(layer.matrix()) - kernel)
    expected = error / np.linalg.norm(kernel)
    assert 1e-3 < expected < 1.0
    assert_close(layer.conversion_residual, expected, 1e-5)


def test_from_stock_keeps_what_is_frozen():
    simple = keras.layers.SimpleRNN(UNITS)
    simple.build((None, None, FEATURES))
    simple.cell.recurrent_kernel.trainable = False
    simple.cell.bias.trainable = False
    layer = SpectralRNN.from_stock(simple, sigma_mode="free")
    assert [v.name for v in layer.trainable_variables] == ["kernel"]
    cell = layer.to_stock().cell
    assert cell.kernel.trainable
    assert not cell.bias.trainable and not cell.recurrent_kernel.trainable


def test_from_stock_refuses_activations_with_weights():
    simple = keras.layers.SimpleRNN(UNITS, activation=keras.layers.PReLU())
    simple(np.ones((2, 3, FEATURES)))
    with pytest.raises(ValueError, match="trainable activation"):
        SpectralRNN.from_stock(simple, sigma_mode="free")
