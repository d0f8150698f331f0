"""SpectralConv1D and 2D: every option of Keras, and the operator's norm."""

import itertools
import math

import numpy as np
import pytest
from keras import ops

from tests.helpers import MODES
from tests.helpers import assert_close
from tests.helpers import evaluate
from tests.layers import contract
from tests.layers.contract import EXACT
from tests.layers.contract import normal
from tests.layers.contract import shaken
from tf_spectral.layers import SpectralConv1D
from tf_spectral.layers import SpectralConv2D

SHAPES = {SpectralConv1D: (7, 4), SpectralConv2D: (6, 5, 4)}


@pytest.fixture(autouse=True)
def double_precision():
    with contract.everything_in(contract.DTYPE):
        yield


def built(kind, shape, *arguments, **options):
    options = {"sigma_radius": 0.5, **options}
    layer = kind(*arguments, **options)
    layer.build((None, *shape))
    return shaken(layer)


def assert_equals_the_stock_layer(kind, shape, mode=MODES[0], **options):
    layer = built(kind, shape, 6, 2, activation="relu", **options)
    x, stock = normal(3, *shape), layer.to_stock()
    expected = evaluate(stock, x, mode=mode)
    assert_close(evaluate(layer, x, mode=mode), expected, EXACT)
    assert layer.compute_output_shape(x.shape) == expected.shape
    again = type(layer).from_stock(stock)
    assert_close(evaluate(again, x, mode=mode), expected, 1e-5)


@pytest.mark.parametrize(
    "kind,padding",
    [
        (SpectralConv1D, "valid"),
        (SpectralConv1D, "same"),
        (SpectralConv1D, "causal"),
        (SpectralConv2D, "valid"),
        (SpectralConv2D, "same"),
    ],
)
@pytest.mark.parametrize(
    "strides,dilation_rate,groups", [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 1, 2)]
)
@pytest.mark.costly(keep=8)
def test_equals_the_stock_layer(kind, padding, strides, dilation_rate, groups):
    assert_equals_the_stock_layer(
        kind,
        SHAPES[kind],
        padding=padding,
        strides=strides,
        dilation_rate=dilation_rate,
        groups=groups,
    )


@pytest.mark.parametrize(
    "kind,padding", [(SpectralConv1D, "causal"), (SpectralConv2D, "same")]
)
def test_channels_first(kind, padding):
    """TensorFlow can do it on a CPU with XLA alone, in Keras' layers too."""
    *space, channels = SHAPES[kind]
    assert_equals_the_stock_layer(
        kind,
        (channels, *space),
        mode=MODES[-1],
        padding=padding,
        dilation_rate=2,
        data_format="channels_first",
    )


@pytest.mark.parametrize(
    "size,strides,padding",
    [
        ((3, 3), (1, 1), "same"),
        ((3, 2), (1, 1), "valid"),
        ((3, 2), (2, 1), "same"),
        ((2, 2), (2, 2), "valid"),
        ((1, 1), (1, 1), "valid"),
    ],
)
def test_norm_of_the_convolution(size, strides, padding):
    """Between the norm of the kernel and that times the overlap's root."""
    layer = built(
        SpectralConv2D,
        (6, 6, 2),
        3,
        size,
        strides=strides,
        padding=padding,
        use_bias=False,
    )
    basis = np.eye(72).reshape(72, 6, 6, 2).astype(contract.DTYPE)
    operator = ops.convert_to_numpy(layer(basis)).reshape(72, -1)
    norm = np.linalg.norm(operator, 2)
    sigma = float(ops.max(layer.singular_values()))
    overlap = math.prod(
        math.ceil(k / s) for k, s in zip(size, strides, strict=True)
    )
    assert sigma * (1 - 1e-5) <= norm <= math.sqrt(overlap) * sigma + 1e-5
    if overlap == 1 and padding == "valid":
        assert_close(norm, sigma, 1e-5)


def test_the_norm_nearly_reaches_its_bound():
    """A constant image and a kernel that averages: the bound is needed."""
    layer = built(
        SpectralConv2D, (16, 16, 1), 1, 3, padding="same", use_bias=False
    )
    kernel = np.full((9, 1), 1 / 3).astype(contract.DTYPE)
    layer.svd.assign_matrix(kernel)
    x = np.ones((1, 16, 16, 1)).astype(contract.DTYPE)
    ratio = np.linalg.norm(ops.convert_to_numpy(layer(x))) / np.linalg.norm(x)
    assert 2.7 < ratio <= 3.0


@pytest.mark.parametrize("groups", (1, 2, 4))
def test_each_group_obeys_the_upper_bound(groups):
    layer = built(SpectralConv1D, (5, 4), 8, 3, groups=groups)
    kernel = ops.convert_to_numpy(layer.matrix())
    assert kernel.shape == (3 * 4 // groups, 8)
    for columns in np.split(kernel, groups, axis=1):
        assert np.linalg.norm(columns, 2) <= 1.5 + 1e-6


def test_modrelu_on_channels():
    layer = built(SpectralConv2D, (4, 4, 2), 3, 2, activation="modrelu")
    assert tuple(layer.activation.bias.shape) == (3,)
    with pytest.raises(ValueError, match="channels_last.*Received"):
        SpectralConv2D(3, 2, activation="modrelu", data_format="channels_first")


@pytest.mark.parametrize(
    "options",
    [
        {"filters": 0},
        {"kernel_size": 0},
        {"strides": 0},
        {"groups": 0},
        {"groups": 4},
        {"padding": "full"},
        {"kernel_size": (2, 2, 2)},
        {"strides": 2, "dilation_rate": 2},
        {"data_format": "channels_middle"},
        {"colour": "red"},
    ],
)
@pytest.mark.parametrize("kind", SHAPES)
def test_refuses_what_keras_refuses(kind, options):
    with pytest.raises((ValueError, TypeError)):
        kind(**{"filters": 6, "kernel_size": 2, **options})


@pytest.mark.parametrize("channels", (3, None))
def test_refuses_channels_that_do_not_divide(channels):
    layer = SpectralConv1D(4, 2, groups=2)
    with pytest.raises(ValueError, match="channels.*Received"):
        layer.build((None, 5, channels))


def test_arguments_by_place_are_those_of_keras():
    layer = SpectralConv2D(4, (3, 2), (1, 1), "same", None, (2, 2))
    config = layer.get_config()
    stock = layer.stock(4, (3, 2), (1, 1), "same", None, (2, 2)).get_config()
    for key in itertools.filterfalse(
        lambda k: k in ("name", *layer.refused_options), stock
    ):
        assert config[key] == stock[key], key
