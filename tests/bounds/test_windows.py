"""Bounds of layers that are linear maps, against their matrices."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles_bounds as oracles
from tf_spectral.bounds import LayerwiseSmoothness

NORMS = (1, 2, "inf")
CROSSENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def float64_layers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def read(inputs, outputs, q, loss=CROSSENTROPY, **options):
    model = keras.Model(inputs, outputs)
    return model, LayerwiseSmoothness.from_model(model, q, loss=loss, **options)


# Sliding windows, against the matrix of the map.


def matrix_of(layer, shape):
    """The matrix, Keras' layout, of a linear layer."""
    n = int(np.prod(shape))
    basis = np.eye(n).reshape(n, *shape)
    return ops.convert_to_numpy(layer(basis)).reshape(n, -1)


def factors(record):
    kinds = ("affine", "scale")
    return [
        n["factor"] for n in record.get_config()["nodes"] if n["kind"] in kinds
    ]


WINDOWED = {
    "conv1d": (lambda: layers.Conv1D(2, 3, use_bias=False), (7, 2)),
    "strided": (
        lambda: layers.Conv1D(3, 5, strides=2, use_bias=False),
        (9, 2),
    ),
    "same": (
        lambda: layers.Conv1D(2, 4, strides=3, padding="same", use_bias=False),
        (8, 1),
    ),
    "causal and dilated": (
        lambda: layers.Conv1D(
            2, 3, dilation_rate=2, padding="causal", use_bias=False
        ),
        (7, 2),
    ),
    "conv2d": (lambda: layers.Conv2D(2, (2, 3), use_bias=False), (4, 5, 2)),
    "strided 2d": (
        lambda: layers.Conv2D(2, 3, strides=(2, 1), use_bias=False),
        (5, 5, 1),
    ),
    "few positions": (lambda: layers.Conv1D(2, 6, use_bias=False), (7, 1)),
    "depthwise": (
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, use_bias=False),
        (3, 4, 2),
    ),
    "conv3d": (lambda: layers.Conv3D(2, 2, use_bias=False), (3, 3, 2, 1)),
}


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("name", WINDOWED)
def test_convolutions_against_their_matrix(name, q):
    make, shape = WINDOWED[name]
    layer, inputs = make(), layers.Input(shape)
    _, record = read(inputs, layer(inputs), q)
    assert record.certified
    rng = np.random.default_rng(0)
    ratios = []
    shapes = layer.kernel.shape
    for kernel in (rng.normal(size=shapes), np.ones(shapes)):
        layer.kernel.assign(kernel)
        norm = oracles.norm(kernel, q)
        found = oracles.norm(matrix_of(layer, shape), q)
        ratios.append(found / (factors(record)[-1] * norm))
    assert 0.3 < max(ratios) <= 1 + 1e-6
    if q == "inf" and name != "depthwise":
        np.testing.assert_allclose(max(ratios), 1.0, rtol=1e-6)
    start = record.get_config()["nodes"][-1]["starts"][0]
    assert start[2] == factors(record)[-1]


LINEAR = {
    "average": (lambda: layers.AveragePooling1D(2), (6, 2)),
    "overlapping": (lambda: layers.AveragePooling2D(3, strides=1), (5, 4, 1)),
    "same": (lambda: layers.AveragePooling1D(3, 2, padding="same"), (6, 1)),
    "global": (lambda: layers.GlobalAveragePooling2D(), (3, 2, 2)),
    "flatten": (lambda: layers.Flatten(), (3, 2)),
    "reshape": (lambda: layers.Reshape((3, 2)), (6,)),
    "permute": (lambda: layers.Permute((2, 1)), (3, 2)),
    "padding": (lambda: layers.ZeroPadding1D(2), (3, 2)),
    "cropping": (lambda: layers.Cropping1D(1), (4, 2)),
    "upsampling": (lambda: layers.UpSampling2D(2), (2, 2, 1)),
    "repeat": (lambda: layers.RepeatVector(3), (4,)),
    "rescaling": (lambda: layers.Rescaling(-3.0), (4,)),
}


@pytest.mark.parametrize("q", NORMS)
@pytest.mark.parametrize("name", LINEAR)
def test_layers_without_weights_against_their_matrix(name, q):
    make, shape = LINEAR[name]
    layer, inputs = make(), layers.Input(shape)
    _, record = read(inputs, layer(inputs), q)
    found = oracles.norm(matrix_of(layer, shape), q)
    # Keras averages in float32 on some backends.
    assert 0.5 < found / factors(record)[-1] <= 1 + 1e-6
    assert record.certified
