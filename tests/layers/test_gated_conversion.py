"""SpectralLSTM and SpectralGRU from and to the stock layers."""

import keras
import numpy as np
import pytest

from tests.helpers import assert_close
from tests.layers import contract
from tests.layers.contract import DTYPE
from tests.layers.contract import FEATURES
from tests.layers.contract import normal
from tests.layers.gated import BOTH
from tests.layers.gated import UNITS
from tests.layers.gated import array
from tests.layers.gated import make
from tf_spectral.layers import ModReLU
from tf_spectral.layers import SpectralLSTM


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(DTYPE):
        yield


@pytest.mark.parametrize("layer_class", BOTH)
@pytest.mark.parametrize("sigma_mode", ["sigmoid", "clip", "free"])
def test_from_the_stock_layer_and_back(layer_class, sigma_mode):
    stock = layer_class.stock(
        UNITS,
        activation="softsign",
        go_backwards=True,
        return_sequences=True,
        recurrent_dropout=0.1,
        bias_initializer="ones",
        kernel_regularizer="l2",
        activity_regularizer="l2",
        name="mine",
    )
    stock.build((None, None, FEATURES))
    layer = layer_class.from_stock(stock, sigma_mode=sigma_mode)
    assert layer.name == "mine" and layer.recurrent_dropout == 0.1
    assert layer.conversion_residual < 1e-5
    x = normal(2, 5, FEATURES)
    assert_close(array(layer(x)), array(stock(x)), 1e-5)
    matrix = array(stock.cell.recurrent_kernel)
    assert_close(array(layer.matrix()), matrix, 1e-5)
    again = layer.to_stock()
    assert type(again) is layer_class.stock
    ours = {**again.get_config(), "recurrent_initializer": None}
    assert ours == {**stock.get_config(), "recurrent_initializer": None}
    assert_close(array(again(x)), array(stock(x)), 1e-5)


@pytest.mark.parametrize("layer_class", BOTH)
def test_stateful_layers_convert(layer_class):
    stock = layer_class.stock(UNITS, stateful=True)
    stock.build((2, None, FEATURES))
    layer = layer_class.from_stock(stock)
    x = normal(2, 5, FEATURES)
    for _ in range(2):
        assert_close(array(layer(x)), array(stock(x)), 1e-5)
    assert layer.to_stock().stateful


@pytest.mark.parametrize("layer_class", BOTH)
def test_conversions_that_fail(layer_class):
    layer = make(layer_class)
    stock, convert = layer.to_stock(), layer_class.from_stock
    stock.cell.recurrent_kernel.assign(
        np.concatenate(
            [(i + 1) * np.eye(UNITS) for i in range(len(layer.cell.gates))], 1
        )
    )
    for wrong in (layer, layer_class.stock(UNITS), None):
        with pytest.raises(ValueError, match="`layer` must be a built"):
            convert(wrong)
    with pytest.raises(ValueError, match="must be built"):
        layer_class(UNITS).to_stock()
    with pytest.raises(ValueError, match="`use_bias`"):
        convert(stock, use_bias=False)
    last = "output_gate" if layer_class is SpectralLSTM else "candidate"
    reach = len(layer.cell.gates)
    # Too narrow for the third and later gates.
    with pytest.raises(ValueError, match="candidate of `layer`.*sigma_radius="):
        convert(stock, sigma_center=1.5, sigma_radius=0.75)
    with pytest.raises(
        ValueError, match=f"the {last}.*in \\[{reach}.*, {reach}"
    ):
        convert(stock, sigma_center=1.0)
    stock.cell.recurrent_kernel.assign(normal(UNITS, reach * UNITS))
    with pytest.raises(ValueError, match="(?s)gate of.*reflectors.*residual"):
        convert(stock, reflectors=1)


@pytest.mark.parametrize("layer_class", BOTH)
@pytest.mark.parametrize(
    "options",
    [{"reflectors": 1}, {"sigma_center": 0.9, "sigma_radius": 0.01}],
)
def test_the_nearest_fit_and_its_residual(layer_class, options):
    stock = make(layer_class).to_stock()
    fit = layer_class.from_stock(stock, exact=False, **options)
    kernel = array(stock.cell.recurrent_kernel)
    error = np.linalg.norm(array(fit.matrix()) - kernel)
    expected = error / np.linalg.norm(kernel)
    assert 1e-3 < expected < 1.0
    assert_close(fit.conversion_residual, expected, 1e-5)
    assert layer_class(UNITS).conversion_residual is None


@pytest.mark.parametrize("layer_class", BOTH)
@pytest.mark.parametrize("name", ["activation", "recurrent_activation"])
def test_activations_with_weights_do_not_go_over(layer_class, name):
    for activation in (ModReLU(), keras.layers.PReLU()):
        layer = layer_class(UNITS, **{name: activation})
        layer(np.ones((2, 3, FEATURES)))
        with pytest.raises(ValueError, match="trainable activation"):
            layer.to_stock()
    stock = layer_class.stock(UNITS, **{name: keras.layers.PReLU()})
    stock(np.ones((2, 3, FEATURES)))
    with pytest.raises(ValueError, match="trainable activation"):
        layer_class.from_stock(stock)


@pytest.mark.parametrize("layer_class", BOTH)
@pytest.mark.parametrize("frozen", ["kernel", "bias", "recurrent_kernel"])
def test_what_is_frozen_of_a_layer_stays_frozen(layer_class, frozen):
    stock = make(layer_class).to_stock()
    getattr(stock.cell, frozen).trainable = False
    layer = layer_class.from_stock(stock)
    assert layer.cell.kernel.trainable == (frozen != "kernel")
    assert layer.cell.bias.trainable == (frozen != "bias")
    for svd in layer.svds.values():
        assert svd.trainable == (frozen != "recurrent_kernel")
    cell = layer.to_stock().cell
    for name in ("kernel", "bias", "recurrent_kernel"):
        assert getattr(cell, name).trainable == (name != frozen)


@pytest.mark.parametrize("layer_class", BOTH)
def test_there_is_no_gain_for_a_recurrent_kernel(layer_class):
    stock = make(layer_class).to_stock()
    with pytest.raises(ValueError, match="`sigma_center`.*recurrent"):
        layer_class.from_stock(stock, sigma_center="auto")
