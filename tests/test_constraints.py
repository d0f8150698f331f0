"""The constraint: its projection, and stock layers that train under it."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import helpers
from tests.helpers import BACKEND
from tests.helpers import assert_close
from tf_spectral.constraints import Orthogonal
from tf_spectral.initializers import Haar
from tf_spectral.layers import SpectralLSTM
from tf_spectral.parametrizations import Orthogonal as Parametrization

RNG = np.random.default_rng(0)
EXACT = {"float64": 1e-13, "float32": 1e-5}


def polar(x):
    """The nearest matrix with orthonormal columns or rows (math 1.1)."""
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return u @ vt


def blockwise(f, x, blocks):
    flat = x.reshape(-1, x.shape[-1])
    parts = [f(part) for part in np.split(flat, blocks, axis=1)]
    return np.concatenate(parts, axis=1).reshape(x.shape)


def error_of(w, blocks=1):
    """`||w^T w - I||_2`, by rows if wide, of the worst block."""
    w = ops.convert_to_numpy(w).astype("float64")
    errors = []
    for part in np.split(w.reshape(-1, w.shape[-1]), blocks, axis=1):
        part = part.T if part.shape[0] < part.shape[1] else part
        gram = part.T @ part - np.eye(part.shape[1])
        errors.append(np.linalg.norm(gram, 2))
    return max(errors)


# The projection


@pytest.mark.parametrize(
    "shape,blocks,dtype",
    [
        ((5, 5), 1, "float64"),
        ((5, 5), 1, "float32"),
        ((7, 3), 1, "float64"),
        ((3, 7), 1, "float64"),
        ((1, 1), 1, "float64"),
        ((1, 4), 1, "float64"),
        ((4, 6), 3, "float64"),
        ((4, 8), 2, "float32"),
        ((2, 2, 6), 2, "float64"),
    ],
)
def test_gives_the_nearest_matrix(shape, blocks, dtype, mode):
    w = RNG.normal(size=shape).astype(dtype)
    actual = helpers.evaluate(Orthogonal(blocks), w, mode=mode)
    assert actual.dtype == dtype
    expected = blockwise(polar, w.astype("float64"), blocks)
    # The polar factor moves by the rounding over the least singular value.
    least = min(
        np.linalg.svd(part, compute_uv=False)[-1]
        for part in np.split(
            w.reshape(-1, shape[-1]).astype("float64"), blocks, axis=1
        )
    )
    tolerance = EXACT[dtype] * max(1.0, 1.0 / least)
    assert_close(actual, expected, tolerance)
    assert error_of(actual, blocks) < 10 * EXACT[dtype]


def test_an_orthogonal_matrix_stays():
    q = ops.convert_to_numpy(Haar(seed=1)((20, 20), "float64"))
    assert_close(ops.convert_to_numpy(Orthogonal()(q)), q, 1e-14)


@pytest.mark.parametrize("determinant", [1, -1])
def test_keeps_the_determinant_of_a_small_step(determinant):
    q = ops.convert_to_numpy(Haar(determinant, seed=1)((6, 6), "float64"))
    step = RNG.normal(size=(6, 6))
    w = q + 0.9 * step / np.linalg.norm(step, 2)
    projected = ops.convert_to_numpy(Orthogonal()(w))
    assert_close(np.linalg.det(projected), determinant, 1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.costly(keep=2)
def test_nan_stays_within_its_block(bad, mode):
    w = RNG.normal(size=(3, 6))
    w[1, 1] = bad
    projected = helpers.evaluate(Orthogonal(2), w, mode=mode)
    assert np.isnan(projected[:, :3]).all()
    assert_close(projected[:, 3:], polar(w[:, 3:]), 1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_finite_matrix_becomes_orthogonal(dtype):
    """Huge, tiny, and of any rank: the nearest, one of them if many are."""
    u, v = RNG.normal(size=(5, 1)), RNG.normal(size=(1, 5))
    for w in (
        np.zeros((5, 5)),
        np.ones((5, 5)),
        np.eye(5) - np.eye(5)[::-1],
        u @ v,
        1e30 * RNG.normal(size=(5, 5)),
        1e-30 * RNG.normal(size=(5, 5)),
        np.diag([1e30, 1.0, 1e-30, 0.0, 1e-12]),
    ):
        w = w.astype(dtype)
        q = ops.convert_to_numpy(Orthogonal()(w))
        assert error_of(q) < 10 * EXACT[dtype]
        nuclear = np.linalg.svd(w.astype("float64"), compute_uv=False).sum()
        assert_close(np.sum(w * q), nuclear, 10 * EXACT[dtype])
    for shape in ((4, 0), (0, 4), (1, 1), (1, 3), (7, 2), (2, 7)):
        q = ops.convert_to_numpy(Orthogonal()(np.zeros(shape, dtype)))
        assert 0 in shape or error_of(q) < 10 * EXACT[dtype]


def test_a_matrix_of_rank_one_becomes_orthogonal(mode):
    w = np.outer([1.0, -2.0, 3.0], [2.0, 1.0])
    q = helpers.evaluate(Orthogonal(), w, mode=mode)
    assert error_of(q) < 1e-13
    assert_close(np.sum(w * q), np.linalg.norm(w), 1e-13)


# Under a stock optimizer


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.1),
    "sgd": lambda: keras.optimizers.SGD(0.5, momentum=0.9),
}
if hasattr(keras.optimizers, "Muon"):
    OPTIMIZERS["muon"] = lambda: keras.optimizers.Muon(0.1)

LAYERS = {
    "dense": (
        lambda c: layers.Dense(4, kernel_constraint=c, activation="tanh"),
        lambda layer: layer.kernel,
        1,
    ),
    "simple_rnn": (
        lambda c: layers.SimpleRNN(5, recurrent_constraint=c),
        lambda layer: layer.cell.recurrent_kernel,
        1,
    ),
    "lstm": (
        lambda c: layers.LSTM(3, recurrent_constraint=c),
        lambda layer: layer.cell.recurrent_kernel,
        4,
    ),
    "gru": (
        lambda c: layers.GRU(3, recurrent_constraint=c),
        lambda layer: layer.cell.recurrent_kernel,
        3,
    ),
    "conv": (
        lambda c: layers.Conv1D(5, 2, kernel_constraint=c, padding="same"),
        lambda layer: layer.kernel,
        1,
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_weight_is_orthogonal_after_each_step(kind, optimizer):
    make, weight, blocks = LAYERS[kind]
    layer = make(Orthogonal(blocks))
    layer.build((None, 6, 3))
    before = ops.convert_to_numpy(weight(layer)).copy()
    variables = layer.trainable_variables
    stepper = OPTIMIZERS[optimizer]()
    for _ in range(4):
        gradients = [
            ops.convert_to_tensor(RNG.normal(size=v.shape).astype("float32"))
            for v in variables
        ]
        stepper.apply(gradients, variables)
        assert error_of(weight(layer), blocks) < 5e-6
    assert np.abs(ops.convert_to_numpy(weight(layer)) - before).max() > 0.01


class ErrorOfEachStep(keras.callbacks.Callback):
    def __init__(self, weight, blocks):
        super().__init__()
        self.weight, self.blocks, self.values = weight, blocks, []

    # An epoch is one step: on JAX weights have no value between batches.
    def on_epoch_end(self, epoch, logs=None):
        self.values.append(error_of(self.weight(), self.blocks))


@pytest.mark.parametrize(
    "kind,optimizer",
    [("simple_rnn", "adam"), ("lstm", "sgd")]
    + [("dense", name) for name in OPTIMIZERS],
)
@pytest.mark.costly(keep=2)
def test_in_a_fit(kind, optimizer):
    make, weight, blocks = LAYERS[kind]
    layer = make(Orthogonal(blocks))
    model = keras.Sequential(
        [keras.Input((3, 2)), layer, layers.Flatten(), layers.Dense(1)]
    )
    model.compile(OPTIMIZERS[optimizer](), "mse")
    monitor = ErrorOfEachStep(lambda: weight(layer), blocks)
    x = RNG.normal(size=(16, 3, 2)).astype("float32")
    y = x[:, 0, :1]
    model.fit(x, y, batch_size=16, epochs=4, callbacks=[monitor], verbose=0)
    assert len(monitor.values) == 4
    assert max(monitor.values) < 5e-6


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no XLA here")
def test_in_a_compiled_training_step():
    layer = layers.Dense(4, kernel_constraint=Orthogonal())
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile("adam", "mse", jit_compile=True)
    x = RNG.normal(size=(8, 6)).astype("float32")
    model.fit(x, x[:, :4], verbose=0)
    assert error_of(layer.kernel) < 5e-6


# Saving


def test_saved_and_loaded(tmp_path):
    layer = layers.LSTM(3, recurrent_constraint=Orthogonal(blocks=4))
    model = keras.Sequential([keras.Input((None, 2)), layer])
    model.compile("adam", "mse")
    x = RNG.normal(size=(4, 5, 2)).astype("float32")
    model.train_on_batch(x, x[:, 0, :1])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    constraint = again.layers[0].cell.recurrent_kernel.constraint
    assert type(constraint) is Orthogonal and constraint.blocks == 4
    # Keras 3.8 goes on with the mean of all batches.
    model.reset_metrics()
    losses = [m.train_on_batch(x, x[:, 0, :1]) for m in (model, again)]
    assert losses[0] == losses[1]
    assert error_of(again.layers[0].cell.recurrent_kernel, 4) < 5e-6


def test_its_registered_name_is_no_other_class():
    data = keras.constraints.serialize(Orthogonal(2))
    again = keras.constraints.get(data)
    assert type(again) is Orthogonal and again.blocks == 2
    data = keras.saving.serialize_keras_object(Parametrization(3))
    assert type(keras.saving.deserialize_keras_object(data)) is Parametrization


# What is refused


@pytest.mark.parametrize("blocks", [0, -1, 1.0, True, "2"])
def test_refuses_blocks(blocks):
    with pytest.raises(ValueError, match="`blocks`.*Received"):
        Orthogonal(blocks)


@pytest.mark.parametrize("shape,blocks", [((), 1), ((3,), 1), ((3, 4), 3)])
def test_refuses_shapes(shape, blocks):
    with pytest.raises(ValueError, match="`w`.*Received: w.shape"):
        Orthogonal(blocks)(np.ones(shape))


def test_refuses_integers():
    with pytest.raises(ValueError, match="`w`.*floating.*Received"):
        Orthogonal()(np.ones((2, 2), "int32"))


# What the names of Keras' layers tell


def test_heads_and_gates_are_known_by_their_names():
    attention = layers.MultiHeadAttention(
        2, 3, kernel_constraint=Orthogonal(), output_shape=5
    )
    attention.build((None, 4, 8), (None, 4, 8))
    lstm = layers.LSTM(
        4, kernel_constraint=Orthogonal(), recurrent_constraint=Orthogonal()
    )
    gru = layers.Bidirectional(layers.GRU(3, recurrent_constraint=Orthogonal()))
    convolution = layers.Conv1D(4, 3, kernel_constraint=Orthogonal())
    stacked = layers.RNN(
        [layers.LSTMCell(5, kernel_constraint=Orthogonal()) for _ in range(2)]
    )
    both = layers.ConvLSTM1D(7, 2, kernel_constraint=Orthogonal())
    spectral = SpectralLSTM(2, kernel_constraint=Orthogonal())
    spectral.build((None, 4, 6))
    for layer in (lstm, gru, convolution, stacked):
        layer.build((None, 4, 6))
    both.build((None, 4, 6, 3))
    cases = {
        (6, 20): 4 * [(6, 5)],
        (6, 8): 4 * [(6, 2)],
        (5, 20): 4 * [(5, 5)],
        (2, 3, 28): 4 * [(6, 7)],
        (8, 2, 3): [(8, 6)],
        (2, 3, 5): [(6, 5)],
        (6, 16): 4 * [(6, 4)],
        (4, 16): 4 * [(4, 4)],
        (3, 9): 3 * [(3, 3)],
        (3, 6, 4): [(18, 4)],
    }
    seen = set()
    for layer in (attention, lstm, gru, convolution, stacked, both, spectral):
        for variable in layer.trainable_variables:
            if variable.constraint is None:
                continue
            shape = tuple(variable.shape)
            seen.add(shape)
            value = variable.constraint(variable)
            assert tuple(value.shape) == shape
            found = variable.constraint.matrices(variable)
            assert [tuple(m.shape) for m in found] == cases[shape]
            axes = variable.constraint.settled(variable).input_axes
            whole = ops.convert_to_numpy(value).reshape(
                int(np.prod(shape[:axes])), -1
            )
            assert error_of(whole, len(found)) < 1e-5
    assert seen == set(cases)


def test_names_that_mislead_are_said():
    for layer in (
        layers.Conv1D(4, 3, kernel_constraint=Orthogonal(), name="value"),
        layers.Conv1D(4, 3, kernel_constraint=Orthogonal(), name="features"),
        layers.DepthwiseConv1D(3, depthwise_constraint=Orthogonal()),
    ):
        layer.build((None, 6, 2))
        variable = layer.trainable_variables[0]
        with pytest.warns(UserWarning, match="input_axes"):
            variable.constraint(variable)


def test_what_no_name_tells_is_said_or_asked():
    layer = layers.EinsumDense(
        "abc,cde->abde", (None, 2, 3), kernel_constraint=Orthogonal()
    )
    layer.build((None, 4, 6))
    with pytest.warns(UserWarning, match="input_axes"):
        layer.kernel.constraint(layer.kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.kernel.constraint(layer.kernel)
        told = Orthogonal(input_axes=1)
        value = told(layer.kernel)
    value = ops.convert_to_numpy(value)
    assert error_of(value.reshape(6, 6)) < 1e-5
    again = Orthogonal.from_config(told.get_config())
    assert (again.blocks, again.input_axes) == (None, 1)
    for bad in (0, True, 1.0, "2"):
        with pytest.raises(ValueError, match="input_axes"):
            Orthogonal(input_axes=bad)
    with pytest.raises(ValueError, match="rank of at least 3"):
        Orthogonal(input_axes=2)(np.eye(3))
