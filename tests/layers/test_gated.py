"""SpectralLSTM and SpectralGRU: their kernel, their gates, what they refuse.

That they do what `keras.layers.LSTM` and `GRU` do is the contract's.
"""

import subprocess
import sys

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
from tests.layers.contract import shaken
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.callbacks import gradient_norms_over_time
from tf_spectral.initializers import GaussianReflectors
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralGRUCell
from tf_spectral.layers import SpectralLSTM
from tf_spectral.layers import SpectralLSTMCell
from tf_spectral.parametrizations import SVD

UNITS = 4
DROPOUT = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 7}
CENTER, RADIUS = 0.8, 0.3
BOTH = (SpectralLSTM, SpectralGRU)
MASK = np.array(
    [[False, True, True, False, True], [True, True, True, True, False]]
)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def make(layer_class, **options):
    """A built layer of wide bounds whose weights are all off their start."""
    options = {"sigma_center": CENTER, "sigma_radius": RADIUS, **options}
    layer = layer_class(UNITS, **options)
    layer.build((None, None, FEATURES))
    return shaken(layer)


def states_of(layer, batch=2):
    state = ops.convert_to_tensor(normal(batch, UNITS, seed=2))
    return [state] * len(layer.state_size)


def of_gates(matrix):
    """The square blocks of a recurrent kernel."""
    return np.split(array(matrix), matrix.shape[1] // matrix.shape[0], axis=1)


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
@pytest.mark.costly(keep=4)
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
@pytest.mark.costly
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


@pytest.mark.skipif(
    helpers.BACKEND != "tensorflow", reason="Only there XLA excludes cuDNN"
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"unroll": True},
        {"use_bias": False},
        {"reset_after": False},
        {"use_cudnn": False},
    ],
)
def test_xla_is_given_up_where_the_stock_layer_runs_cudnn(options, monkeypatch):
    """As on a machine with a GPU, where Keras decides by these options."""

    def cudnn_ok(activation, gate, unroll, use_bias, reset_after=True):
        plain = activation is keras.activations.tanh
        plain = plain and gate is keras.activations.sigmoid
        return plain and not unroll and use_bias and reset_after

    monkeypatch.setattr("keras.src.backend.cudnn_ok", cudnn_ok)
    for layer_class in BOTH:
        if "reset_after" in options and layer_class is SpectralLSTM:
            continue
        layer = layer_class(UNITS, **options)
        stock = layer_class.stock(UNITS, **options)
        assert layer.supports_jit == stock.supports_jit == bool(options)
        assert type(layer.cell) is layer_class.cell_class
        assert len(layer._flatten_layers()) == 2 + len(layer.cell.gates)


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


@pytest.fixture
def formed(monkeypatch):
    """How often any parametrization formed its matrix."""
    calls = []
    matrix = SVD.matrix

    def counted(self):
        calls.append(self.name)
        return matrix(self)

    monkeypatch.setattr(SVD, "matrix", counted)
    return calls


@pytest.mark.parametrize("layer_class", BOTH)
@pytest.mark.parametrize("options", [{}, DROPOUT, {"unroll": True}])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.costly(keep=5)
def test_forms_each_matrix_once(layer_class, options, training, formed):
    layer = make(layer_class, **options)
    unroll = options.get("unroll", False)
    plain = keras.layers.RNN(layer.cell, unroll=unroll)
    for runs in (layer, plain, layer):
        formed.clear()
        runs(normal(2, 7, FEATURES), training=training)
        assert sorted(formed) == sorted(layer.cell.gates)


def test_stacked_cells_form_each_matrix_once(formed):
    cells = [
        SpectralLSTMCell(UNITS),
        SpectralGRUCell(UNITS, reset_after=False, **DROPOUT),
    ]
    rnn = keras.layers.RNN(cells)
    rnn.build((None, None, FEATURES))
    for training in (False, True):
        formed.clear()
        rnn(normal(2, 7, FEATURES), training=training)
        expected = [gate for cell in cells for gate in cell.gates]
        assert sorted(formed) == sorted(expected)


@pytest.mark.parametrize("layer_class", BOTH)
def test_a_new_weight_counts_at_once(layer_class, formed):
    """Nothing of one sequence, or of one step, is kept for the next."""
    layer = make(layer_class, recurrent_dropout=0.2)
    plain, x = keras.layers.RNN(layer.cell), normal(2, 1, FEATURES)
    states, outputs = states_of(layer), []
    for _ in range(2):
        step, _ = layer.cell(x[:, 0], states)
        layer.cell(x[:, 0], states, training=True)
        for whole in (layer, plain):
            output = whole(x, initial_state=states)
            assert_close(array(step), array(output), EXACT)
        outputs.append(array(step))
        formed.clear()
        layer.cell(x[:, 0], states)
        assert len(formed) == len(layer.cell.gates)
        shaken(layer, seed=1)
    assert np.max(np.abs(outputs[0] - outputs[1])) > 0.01


@pytest.mark.parametrize("layer_class", BOTH)
def test_reading_the_kernel_begins_no_call(layer_class):
    """Keras would keep the losses of the calls that come after."""
    layer = make(layer_class, activity_regularizer="l2")
    x = normal(2, 5, FEATURES)
    layer(x)
    array(layer.cell.recurrent_kernel)
    for _ in range(2):
        layer(x)
        assert len(layer.losses) == 1


@pytest.mark.parametrize("layer_class", BOTH)
def test_a_failed_sequence_counts_no_more(layer_class):
    """The kernel that a plain RNN formed before it failed is not used."""
    layer = make(layer_class)
    x, plain = normal(2, 5, FEATURES), keras.layers.RNN(layer.cell)
    wrong = states_of(layer, batch=3)
    with pytest.raises(Exception):  # noqa: B017, as each backend's differs
        plain(x, initial_state=wrong)
    shaken(layer, seed=1)
    states = states_of(layer)
    expected = layer.to_stock()(x[:, :1], initial_state=states)
    step, _ = layer.cell(x[:, 0], states)
    assert_close(array(step), array(expected), EXACT)


def model_of(layer):
    model = keras.Sequential(
        [keras.Input((5, FEATURES)), layer, keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    return model


def test_the_spectrum_of_each_gate_is_monitored():
    layer = make(SpectralLSTM, name="mine")
    monitor = SpectrumMonitor()
    monitor.set_model(model_of(layer))
    monitor.on_train_begin()
    monitor.on_epoch_begin(0)
    for gate, sigma in zip(layer.cell.gates, array(layer.singular_values())):
        (key,) = (k for k in monitor.history if f"{gate}/sigma_max" in k)
        assert key.startswith("mine/")
        assert_close(monitor.history[key][-1], sigma.max(), EXACT)


def test_gradient_norms_are_those_of_the_stock_layer():
    x, y = normal(2, 5, FEATURES), normal(2, 2)
    layer = make(SpectralLSTM)
    model, stock = model_of(layer), model_of(layer.to_stock())
    stock.layers[-1].set_weights(model.layers[-1].get_weights())
    expected = gradient_norms_over_time(stock, x, y)
    assert_close(gradient_norms_over_time(model, x, y), expected, CLOSE)


SERVER = """
import sys

sys.modules["tf_spectral"] = sys.modules["keras"] = None

import numpy as np
import tensorflow as tf

folder, file = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
(answer,) = serve(tf.constant(np.load(file))).values()
np.save(file, answer)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    helpers.BACKEND != "tensorflow", reason="SavedModels are TensorFlow's"
)
def test_keras_exports_what_needs_no_library(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            SpectralLSTM(UNITS, return_sequences=True),
            SpectralGRU(UNITS),
        ]
    )
    model.export(tmp_path / "model", verbose=False)
    x, file = normal(2, 5, FEATURES), str(tmp_path / "x.npy")
    np.save(file, x)
    command = [sys.executable, "-c", SERVER, str(tmp_path / "model"), file]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    assert_close(np.load(file), array(model(x)), EXACT)
