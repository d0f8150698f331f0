"""SpectralLSTM and SpectralGRU form each matrix once a sequence."""

import keras
import numpy as np
import pytest

from tests.helpers import assert_close
from tests.layers import contract
from tests.layers.contract import DTYPE
from tests.layers.contract import EXACT
from tests.layers.contract import FEATURES
from tests.layers.contract import normal
from tests.layers.contract import shaken
from tests.layers.gated import BOTH
from tests.layers.gated import DROPOUT
from tests.layers.gated import UNITS
from tests.layers.gated import array
from tests.layers.gated import make
from tests.layers.gated import states_of
from tf_spectral.layers import SpectralGRUCell
from tf_spectral.layers import SpectralLSTMCell
from tf_spectral.parametrizations import SVD


@pytest.fixture(autouse=True)
def precision():
    with contract.everything_in(DTYPE):
        yield


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
