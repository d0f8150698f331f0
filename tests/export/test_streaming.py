"""Steps through time: the same outputs, or the reason against them."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.export.models import FEATURES
from tests.export.models import RNG
from tests.export.models import STACKS
from tests.export.models import bidirectional
from tests.export.models import functional
from tests.export.models import inputs
from tests.export.models import sequential
from tests.export.models import values
from tests.helpers import assert_close
from tf_spectral.export.streaming import Stream
from tf_spectral.export.streaming import chain_of
from tf_spectral.export.streaming import obstacle
from tf_spectral.layers import SpectralRNN
from tf_spectral.layers import SpectralRNNCell


def stepwise(stream, x):
    """All outputs `(batch, time, ...)` of a loop over the steps."""
    state, outputs = stream.initial_state(len(x)), []
    for t in range(x.shape[1]):
        state = dict(stream.step(x[:, t], *state.values()))
        outputs.append(values(state.pop("outputs")))
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("name", STACKS)
def test_steps_end_where_the_whole_sequence_does(name):
    model = functional(*STACKS[name]())
    assert obstacle(chain_of(model)) is None
    for variable in model.trainable_variables:
        if "initial_state" in variable.path or "bias" in variable.path:
            variable.assign(RNG.normal(size=variable.shape))
    stream = Stream(chain_of(model))
    for x in (inputs(time=5), inputs(batch=1, time=1)):
        assert_close(stepwise(stream, x)[:, -1], values(model(x)), 1e-5)


def test_steps_of_a_model_that_returns_sequences():
    stack = (
        SpectralRNN(8, reflectors=2, return_sequences=True, form="low_rank"),
        layers.GRU(3, return_sequences=True),
        layers.Dense(2, activation="softmax"),
    )
    model, x = sequential(*stack), inputs(time=5)
    stream = Stream(chain_of(model))
    assert_close(stepwise(stream, x), values(model(x)), 1e-5)


def test_each_layer_reads_its_own_dtype():
    """What a cell of half precision gives is cast for a layer that is not."""
    policy = "mixed_bfloat16"
    stack = (
        layers.Dense(3, dtype="float32"),
        SpectralRNN(4, dtype=policy, return_sequences=True),
        layers.Dense(2, dtype="float32"),
        layers.GRU(3, dtype=policy),
    )
    model, x = sequential(*stack), inputs(time=4)
    stream = Stream(chain_of(model))
    state = stream.initial_state(4)
    dtypes = [keras.backend.standardize_dtype(s.dtype) for s in state.values()]
    assert dtypes == ["bfloat16", "bfloat16"]
    after = stream.step(x[:, 0], *state.values())
    for name, before in state.items():
        assert after[name].dtype == before.dtype
    expected = values(keras.ops.cast(model(x), "float32"))
    outputs = stepwise(stream, x)[:, -1].astype("float32")
    assert_close(outputs, expected, 0.05)


@pytest.mark.parametrize("half", ["cell", "layer"])
def test_outputs_have_the_dtype_of_the_layer(half):
    """A cell may compute in another one than the layer around it."""
    dtypes = {"cell": "float32", "layer": "float32", half: "mixed_bfloat16"}
    cell = SpectralRNNCell(4, dtype=dtypes["cell"])
    model = sequential(
        layers.RNN(cell, dtype=dtypes["layer"], return_sequences=True)
    )
    x = inputs(time=3)
    stream = Stream(chain_of(model))
    state = stream.initial_state(len(x))
    outputs = stream.step(x[:, 0], *state.values())["outputs"]
    expected = model(x)[:, 0]
    assert outputs.dtype == expected.dtype
    outputs, expected = (
        values(keras.ops.cast(y, "float32")) for y in (outputs, expected)
    )
    assert_close(outputs, expected, 0.05)


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


OBSTACLES = {
    "Bidirectional": bidirectional,
    "goes backwards": lambda: sequential(layers.GRU(4, go_backwards=True)),
    "Masking": lambda: sequential(layers.Masking(), layers.GRU(4)),
    "makes a mask": lambda: keras.Sequential(
        [
            layers.Input((None,)),
            layers.Embedding(9, 3, mask_zero=True),
            layers.GRU(4),
        ]
    ),
    "once more": lambda: sequential(
        layers.GRU(4), layers.RepeatVector(3), layers.GRU(4)
    ),
    "GlobalAveragePooling1D": lambda: sequential(
        layers.GRU(4, return_sequences=True), layers.GlobalAveragePooling1D()
    ),
    "LayerNormalization": lambda: sequential(
        layers.LayerNormalization(axis=[1, 2]), layers.GRU(4), time=5
    ),
    "Softmax": lambda: sequential(
        layers.Softmax(axis=-2), layers.GRU(4), time=5
    ),
    "Twice": lambda: sequential(Twice(), layers.GRU(4)),
    "ConvLSTM1D|convolutional": lambda: keras.Sequential(
        [layers.Input((None, 6, 2)), layers.ConvLSTM1D(2, 3)]
    ),
    "single chain": lambda: functional_with_initial_state(),
    "returns its state": lambda: functional_with_state(),
    "no recurrent layer": lambda: sequential(layers.Dense(2)),
}


def functional_with_initial_state():
    x = layers.Input((None, FEATURES))
    state = layers.GRU(4)(x)
    return keras.Model(x, layers.GRU(4)(x, initial_state=state))


def functional_with_state():
    x = layers.Input((None, FEATURES))
    return keras.Model(x, layers.GRU(4, return_state=True)(x)[0])


@pytest.mark.parametrize("reason", OBSTACLES)
def test_reason_against_streaming(reason):
    found = obstacle(chain_of(OBSTACLES[reason]()))
    assert found is not None
    assert any(part in found for part in reason.split("|"))


def test_calls_with_arguments_break_a_chain():
    x = layers.Input((None, FEATURES))
    model = keras.Model(x, layers.GRU(4)(layers.Dropout(0.5)(x, training=True)))
    assert chain_of(model) is None
    assert chain_of(keras.Model(x, layers.GRU(4)(x * 2))) is None


def test_branches_and_operations_break_a_chain():
    x = layers.Input((None, FEATURES))
    branched = keras.Model(x, layers.Add()([x, layers.Dense(FEATURES)(x)]))
    assert chain_of(branched) is None
    assert chain_of(sequential(branched, layers.GRU(4))) is None
    operation = keras.Model(x, keras.ops.relu(layers.GRU(4)(x)))
    assert chain_of(operation) is None


def test_model_with_a_call_of_its_own_is_no_chain():
    class Doubled(keras.Model):
        def call(self, x):
            return 2 * super().call(x)

    x = layers.Input((None, FEATURES))
    assert chain_of(Doubled(x, layers.GRU(4)(x))) is None
