"""OrthogonalRNN: its matrix, its training, and what it refuses."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import helpers
from tests import oracles
from tests.helpers import assert_close
from tests.helpers import value_and_grad
from tests.layers import contract
from tests.layers.contract import CLOSE
from tests.layers.contract import EXACT
from tests.layers.contract import arrays_of
from tests.layers.contract import built
from tests.layers.contract import gradients
from tests.layers.contract import normal
from tests.layers.contract import same_weights
from tf_spectral.constraints import Orthogonal
from tf_spectral.initializers import BlockRotation
from tf_spectral.initializers import Cayley
from tf_spectral.initializers import Haar
from tf_spectral.layers import ModReLU
from tf_spectral.layers import OrthogonalRNN
from tf_spectral.layers import OrthogonalRNNCell

UNITS, FEATURES = 6, 3


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(contract.DTYPE):
        yield


def array(tensor):
    return ops.convert_to_numpy(tensor)


def make(units=UNITS, features=FEATURES, **options):
    layer = OrthogonalRNN(units, **options)
    layer.build((None, None, features))
    return layer


def exact_error(layer):
    r = array(layer.matrix())
    return np.linalg.norm(r.T @ r - np.eye(len(r)), 2)


# Defaults


def test_starts_as_the_paper_does():
    """modReLU, no other bias, He, and the blocks of Henaff (math 3.7)."""
    layer = make()
    assert type(layer.activation) is ModReLU
    assert layer.use_bias is False and layer.cell.bias is None
    assert type(layer.kernel_initializer) is keras.initializers.HeNormal
    assert type(layer.recurrent_initializer) is BlockRotation
    assert type(layer.recurrent_constraint) is Orthogonal
    assert type(layer.cell.recurrent_kernel.constraint) is Orthogonal
    names = [v.path.split("/")[-1] for v in layer.trainable_variables]
    assert names == ["kernel", "recurrent_kernel", "bias"]
    r = array(layer.matrix())
    for p in range(3):
        r[2 * p : 2 * p + 2, 2 * p : 2 * p + 2] = 0.0
    assert not r.any()
    assert exact_error(layer) < EXACT
    assert array(layer.orthogonality_error()) < EXACT


def test_a_bias_with_other_activations():
    assert make(activation="tanh").use_bias is True
    assert make(activation="tanh", use_bias=False).use_bias is False
    layer = make(use_bias=True)
    assert layer.use_bias is True and layer.cell.bias is not None
    assert layer.get_config()["use_bias"] is True


@pytest.mark.parametrize(
    "identifier,kind",
    [
        ("cayley", Cayley),
        (Haar(determinant=-1), Haar),
        ("orthogonal", keras.initializers.Orthogonal),
        ("glorot_uniform", keras.initializers.GlorotUniform),
    ],
)
def test_starts_orthogonal_whatever_the_initializer(identifier, kind):
    layer = make(recurrent_initializer=identifier)
    assert type(layer.recurrent_initializer) is kind
    assert exact_error(layer) < EXACT


def test_without_the_constraint_it_starts_as_the_initializer_says():
    layer = make(recurrent_initializer="ones", recurrent_constraint=None)
    assert layer.recurrent_constraint is None
    matrix = array(layer.matrix())
    assert_close(matrix, np.ones((UNITS, UNITS)), 0.0)


# Values and gradients


def test_modrelu_computes_its_formula(mode):
    layer = built(make(return_sequences=True, return_state=True))
    x, state = normal(3, 5, FEATURES), normal(3, UNITS, seed=1)
    mask = np.ones((3, 5), bool)
    mask[0, :2] = mask[1, 2:4] = mask[2] = False
    outputs, last = helpers.evaluate(
        lambda x, h: layer(
            x, initial_state=h, mask=ops.convert_to_tensor(mask)
        ),
        x,
        state,
        mode=mode,
    )
    cell = layer.cell
    expected, expected_last = oracles.simple_rnn(
        x,
        array(cell.kernel),
        np.zeros(UNITS),
        array(cell.recurrent_kernel),
        oracles.modrelu(array(cell.activation.bias)),
        h0=state,
        mask=mask,
    )
    assert_close(outputs, expected, EXACT)
    assert_close(last, expected_last, EXACT)


def test_gradients_with_modrelu_equal_those_of_the_unrolled_loop():
    options = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 7}
    layer = built(make(**options))
    unrolled = same_weights(layer, make(**options, unroll=True))
    x = normal(4, 5, FEATURES)
    expected = gradients(unrolled, x, training=True).values()
    actual = gradients(layer, x, training=True).values()
    assert len(actual) == 4
    for gradient, other in zip(actual, expected, strict=True):
        assert np.any(gradient)
        assert_close(gradient, other, CLOSE)


def test_gradient_through_time_keeps_its_length():
    layer = make(activation="linear", recurrent_initializer="haar")
    steps, g = 40, normal(2, UNITS, seed=3)
    x = ops.zeros((2, steps, FEATURES))

    def loss(state):
        return helpers.inner(layer(x, initial_state=state), g)

    _, (gradient,) = value_and_grad(loss, normal(2, UNITS))
    expected = np.linalg.norm(g, axis=1)
    assert_close(np.linalg.norm(gradient, axis=1), expected, CLOSE)


# Training and saving


@pytest.mark.parametrize("activation", ["modrelu", "tanh", "gelu"])
@pytest.mark.costly
def test_stays_orthogonal_and_learns(activation):
    layer = OrthogonalRNN(UNITS, activation=activation)
    model = keras.Sequential(
        [keras.Input((None, FEATURES)), layer, keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse")
    before = array(layer.matrix()).copy()
    x = normal(64, 3, FEATURES)
    losses = model.fit(x, x[:, 1:2, 0], epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert exact_error(layer) < EXACT
    after = array(layer.matrix())
    assert np.abs(after - before).max() > 0.05
    # No continuous step leads to the other component.
    assert_close(np.linalg.det(after), np.linalg.det(before), CLOSE)


def wrapped(kind, **options):
    if kind == "plain":
        return OrthogonalRNN(UNITS, **options)
    if kind == "bidirectional":
        return keras.layers.Bidirectional(OrthogonalRNN(UNITS, **options))
    cells = [OrthogonalRNNCell(UNITS, **options) for _ in range(2)]
    return keras.layers.RNN(cells)


@pytest.mark.parametrize("kind", ["plain", "bidirectional", "stacked"])
@pytest.mark.costly
def test_saved_with_modrelu(kind, tmp_path):
    layer = wrapped(kind, trainable_initial_state=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    x = normal(4, 5, FEATURES)
    y = np.zeros((4, model.output_shape[-1]))
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(array(again(x)), array(model(x)), 0.0)
    # Keras 3.8 goes on with the mean of all batches.
    model.reset_metrics()
    for _ in range(2):
        assert model.train_on_batch(x, y) == again.train_on_batch(x, y)
    constrained = [
        v for v in again.weights if isinstance(v.constraint, Orthogonal)
    ]
    assert len(constrained) == (1 if kind == "plain" else 2)


def test_config_round_trip():
    layer = OrthogonalRNN(
        UNITS,
        recurrent_initializer=BlockRotation("uniform", determinant=-1, seed=3),
        recurrent_regularizer="l2",
        activity_regularizer="l2",
        stateful=True,
        return_sequences=True,
        seed=4,
    )
    data = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(data)
    assert again.get_config() == layer.get_config()
    assert again.recurrent_initializer.angles == "uniform"
    assert again.stateful and again.return_sequences
    options = set(keras.layers.SimpleRNN(1).get_config())
    assert options <= set(layer.get_config())


def test_regularizer_of_the_matrix():
    layer = make(recurrent_regularizer=keras.regularizers.L2(0.125))
    assert_close(float(layer.losses[0]), 0.125 * UNITS, EXACT)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_half_precision_keeps_a_matrix_of_float32(dtype):
    layer = OrthogonalRNN(UNITS, dtype=dtype)
    output = layer(normal(2, 5, FEATURES))
    assert helpers.dtype_of(output) == "bfloat16"
    kernel = layer.cell.recurrent_kernel
    assert helpers.dtype_of(kernel) == "float32"
    assert exact_error(layer) < 1e-5


# What is refused


@pytest.mark.parametrize("kind", [OrthogonalRNN, OrthogonalRNNCell])
@pytest.mark.parametrize("units", [0, -2, 1.5, True])
def test_refuses_units(kind, units):
    with pytest.raises(ValueError, match="`units`.*Received"):
        kind(units)


def test_refuses_a_stateful_start():
    with pytest.raises(ValueError, match="trainable_initial_state.*Received"):
        OrthogonalRNN(UNITS, stateful=True, trainable_initial_state=True)


def test_refuses_arguments_of_the_spectral_layer():
    with pytest.raises((TypeError, ValueError), match="reflectors"):
        OrthogonalRNN(UNITS, reflectors=2)


def test_one_unit_and_one_step():
    layer = make(units=1, return_sequences=True)
    assert_close(array(layer.matrix()), [[1.0]], EXACT)
    (output,) = arrays_of(layer(normal(2, 1, FEATURES)))
    assert output.shape == (2, 1, 1)
