"""SpectralLSTM and SpectralGRU: their kernel, their gates, what they refuse.

That they do what `keras.layers.LSTM` and `GRU` do is the layer contract's.
"""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests.helpers import assert_close
from tests.helpers import value_and_grad
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import DTYPE
from tests.layers.contract import EXACT
from tests.layers.contract import FEATURES
from tests.layers.contract import gradients
from tests.layers.contract import normal
from tests.layers.gated import BOTH
from tests.layers.gated import CENTER
from tests.layers.gated import DROPOUT
from tests.layers.gated import MASK
from tests.layers.gated import RADIUS
from tests.layers.gated import UNITS
from tests.layers.gated import array
from tests.layers.gated import make
from tests.layers.gated import of_gates
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralGRUCell
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralLSTMCell


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(DTYPE):
        yield


# The stock layer with the formed kernel


def by_raw_weights(layer, cotangent):
    """Gradients of `sum(matrix() * cotangent)`, by path."""
    variables = [w for svd in layer.svds.values() for w in svd.weights]

    def loss(*tensors):
        mapping = list(zip(variables, tensors))
        with keras.StatelessScope(state_mapping=mapping):
            return helpers.inner(layer.matrix(), cotangent)

    _, values = value_and_grad(loss, *[array(v) for v in variables])
    return {v.path: g for v, g in zip(variables, values)}


HARD = {"activation": "relu", "recurrent_activation": "hard_sigmoid"}
SEQUENCES = {"return_sequences": True, "return_state": True}
CASES = [
    (SpectralLSTM, {}, False),
    (SpectralLSTM, {"use_bias": False, **HARD}, False),
    (SpectralLSTM, {"go_backwards": True, **SEQUENCES}, True),
    (SpectralLSTM, DROPOUT, True),
    (SpectralLSTM, {"implementation": 1, "unroll": True}, True),
    (SpectralGRU, {}, True),
    (SpectralGRU, {"reset_after": False, **SEQUENCES}, True),
    (SpectralGRU, {"reset_after": False, "use_bias": False, **HARD}, False),
    (SpectralGRU, {"go_backwards": True, **SEQUENCES}, False),
    (SpectralGRU, DROPOUT, False),
    (SpectralGRU, {"reset_after": False, **DROPOUT}, False),
    (SpectralGRU, {"implementation": 1, "unroll": True}, False),
]


@pytest.mark.parametrize("layer_class,options,masked", CASES)
def test_equals_the_stock_layer(layer_class, options, masked):
    """Outputs and all gradients, also those of U, sigma and V."""
    layer = make(layer_class, reflectors=(2, 3), **options)
    stock = layer_class.stock(UNITS, **options)
    stock.build((None, None, FEATURES))
    bias = [layer.cell.bias] if layer.use_bias else []
    stock.set_weights([layer.cell.kernel, layer.matrix(), *bias])
    x, call = normal(2, 5, FEATURES), {"training": True}
    if masked:
        call["mask"] = ops.convert_to_tensor(MASK)
    expected = {
        path.split("/")[-1]: gradient
        for path, gradient in gradients(stock, x, **call).items()
    }
    raw = by_raw_weights(layer, expected.pop("recurrent_kernel"))
    actual = gradients(layer, x, **call)
    assert len(actual) == len(raw) + len(expected)
    for path, gradient in actual.items():
        close = raw[path] if path in raw else expected[path.split("/")[-1]]
        assert np.any(gradient)
        assert_close(gradient, close, CLOSE)
    outputs, others = layer(x, **call), stock(x, **call)
    for a, b in zip(keras.tree.flatten(outputs), keras.tree.flatten(others)):
        assert_close(array(a), array(b), EXACT)


def test_starts_as_the_stock_layer_does():
    """The bias, with a one for the forget gate."""
    initializer = keras.initializers.Constant(0.25)
    for unit_forget_bias in (True, False):
        options = {
            "bias_initializer": initializer,
            "unit_forget_bias": unit_forget_bias,
        }
        for layer_class in (SpectralLSTM, keras.layers.LSTM):
            layer = layer_class(1, **options)
            layer.build((None, None, FEATURES))
            forget = 1.0 if unit_forget_bias else 0.25
            bias = array(layer.cell.bias)
            assert_close(bias, [0.25, forget, 0.25, 0.25], 0.0)


def test_the_kernel_is_that_of_its_gates():
    for layer_class, gates in zip(BOTH, (4, 3)):
        layer = make(layer_class, reflectors=2)
        assert layer.matrix().shape == (UNITS, gates * UNITS)
        assert layer.singular_values().shape == (gates, UNITS)
        assert len(set(layer.cell.gates)) == gates
        for name, block, sigma in zip(
            layer.cell.gates,
            of_gates(layer.matrix()),
            array(layer.singular_values()),
        ):
            svd = getattr(layer.cell, name)
            assert_close(block, array(svd.matrix()), 0.0)
            exact = np.linalg.svd(block, compute_uv=False)
            assert_close(np.sort(sigma)[::-1], exact, EXACT)


@pytest.mark.parametrize(
    "layer_class,sigma_mode", [*zip(BOTH, ("sigmoid", "clip"))]
)
def test_bounds_hold_after_large_steps(layer_class, sigma_mode):
    layer = layer_class(
        UNITS,
        reflectors=2,
        sigma_center=CENTER,
        sigma_radius=RADIUS,
        sigma_mode=sigma_mode,
    )
    model = keras.Sequential([keras.Input((2, FEATURES)), layer])
    model.compile(keras.optimizers.Adam(1.0), "mse")
    before = [array(v) for v in layer.trainable_variables]
    x, y = normal(30, 2, FEATURES), normal(30, UNITS)
    model.fit(x, y, batch_size=1, verbose=0)
    for block in of_gates(layer.matrix()):
        sigma = np.linalg.svd(block, compute_uv=False)
        assert np.all(np.abs(sigma - CENTER) <= RADIUS + 1e-5)
        assert np.max(np.abs(sigma - CENTER)) > RADIUS / 3
    for old, new in zip(before, layer.trainable_variables, strict=True):
        assert np.max(np.abs(array(new) - old)) > 0.01, new.path


# Options


@pytest.mark.parametrize("layer_class", BOTH)
def test_penalties(layer_class):
    l2 = keras.regularizers.L2
    layer = make(
        layer_class,
        kernel_regularizer=l2(0.125),
        bias_regularizer=l2(0.25),
        recurrent_regularizer=l2(0.5),
        sigma_regularizer=l2(2.0),
    )
    of_sigma = 2.0 * np.sum(array(layer.singular_values()) ** 2)
    stock = layer.to_stock()
    total = sum(float(loss) for loss in stock.losses) + of_sigma
    assert_close(sum(float(loss) for loss in layer.losses), total, CLOSE)


@pytest.mark.parametrize(
    "layer_class,policy", [*zip(BOTH, ("mixed_float16", "mixed_bfloat16"))]
)
def test_half_precision(layer_class, policy):
    layer = make(layer_class, dtype=policy, return_sequences=True)
    x = normal(2, 5, FEATURES)
    output = layer(x)
    assert helpers.dtype_of(output) == policy.removeprefix("mixed_")
    assert {v.dtype for v in layer.weights} == {"float32"}
    assert helpers.dtype_of(layer.matrix()) == "float32"
    full = make(layer_class, dtype="float32", return_sequences=True)
    full.set_weights(layer.get_weights())
    expected = array(full(x.astype("float32")))
    assert_close(array(ops.cast(output, "float32")), expected, 0.03)


def test_frozen_layer_has_no_trainable_weights():
    for layer_class in BOTH:
        layer = make(layer_class, trainable=False)
        assert not layer.trainable_variables
        layer.trainable = True
        assert len(layer.trainable_variables) == len(layer.weights)


@pytest.mark.parametrize("sigma_mode", ["clip", "free", "fixed"])
def test_other_modes_of_sigma(sigma_mode):
    for layer_class in BOTH:
        layer = layer_class(UNITS, sigma_mode=sigma_mode, sigma_center=0.7)
        layer.build((None, None, FEATURES))
        for block in of_gates(layer.matrix()):
            sigma = np.linalg.svd(block, compute_uv=False)
            assert_close(sigma, np.full(UNITS, 0.7), 1e-5)


# What is refused


@pytest.mark.parametrize("kind", [*BOTH, SpectralLSTMCell, SpectralGRUCell])
@pytest.mark.parametrize(
    "name,value",
    [
        ("units", 0),
        ("units", 2.5),
        ("reflectors", UNITS + 1),
        ("reflectors", True),
        ("sigma_radius", 0.0),
        ("sigma_radius", 1.0),
        ("sigma_center", -1.0),
        ("sigma_mode", "tanh"),
        ("reflector_initializer", "orthogonal"),
        ("recurrent_initializer", "orthogonal"),
        ("recurrent_constraint", "max_norm"),
    ],
)
def test_refuses(kind, name, value):
    with pytest.raises(ValueError, match=f"(?s)`{name}`.*{value}"):
        kind(**{"units": UNITS, name: value})


def test_refuses_what_keras_refuses():
    for layer_class in BOTH:
        with pytest.raises(ValueError, match="`use_cudnn`"):
            layer_class(UNITS, use_cudnn="perhaps")
        with pytest.raises((TypeError, ValueError), match="surprise"):
            layer_class(UNITS, surprise=1)
    with pytest.raises((TypeError, ValueError), match="reset_after"):
        SpectralLSTM(UNITS, reset_after=True)


def test_one_initializer_gives_each_gate_a_matrix_of_its_own():
    layer = SpectralLSTM(4, reflector_initializer=GaussianReflectors(0.1, 7))
    layer.build((None, 3, 2))
    gates = [ops.convert_to_numpy(svd.matrix()) for svd in layer.svds.values()]
    for i, gate in enumerate(gates):
        assert all(np.abs(gate - other).max() > 0.1 for other in gates[:i])
    again = SpectralLSTM.from_config(layer.get_config())
    again.build((None, 3, 2))
    for gate, svd in zip(gates, again.svds.values()):
        assert_close(ops.convert_to_numpy(svd.matrix()), gate, 1e-6)
