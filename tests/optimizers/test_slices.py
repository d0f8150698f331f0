"""Which matrices a weight is, and what is measured of each."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tests import oracles_norms as oracles
from tests.helpers import assert_close
from tf_spectral.layers import SpectralGRU
from tf_spectral.layers import SpectralRNN
from tf_spectral.optimizers import slices
from tf_spectral.optimizers.slices import Slices

NORMS = (1, 2, "inf")
SEQUENCE = (5, 4)


def built(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    keras.Model(inputs, layer(*inputs))
    return layer


def told(layer, *shapes):
    """Count, rows, columns and floor by the ends of paths."""
    variables = built(layer, *shapes).trainable_variables
    paths = [v.path for v in variables]
    return {
        "/".join(path.split("/")[-2:]): tuple(part)
        for path, part in zip(paths, slices.slices_of_all(variables, paths))
    }


def test_one_matrix_and_one_vector_by_default():
    found = told(layers.Dense(3, name="d"), (4,))
    assert found["d/kernel"] == (1, 4, 3, False, 1.0)
    assert found["d/bias"] == (1, 1, 3, False, 0.1)
    found = told(layers.Conv2D(6, 3, name="c"), (8, 8, 2))
    assert found["c/kernel"] == (1, 18, 6, False, 1.0)
    found = told(layers.LayerNormalization(name="n"), (4,))
    assert set(found.values()) == {(1, 1, 4, False, 0.1)}


@pytest.mark.parametrize(
    "layer,gates", [(layers.LSTM, 4), (layers.GRU, 3), (SpectralGRU, 3)]
)
def test_one_matrix_for_each_gate(layer, gates):
    found = told(layer(6, name="r"), SEQUENCE)
    cell = next(key.split("/")[0] for key in found if "cell/kernel" in key)
    assert found[f"{cell}/kernel"] == (gates, 4, 6, True, 1.0)
    if layer is not SpectralGRU:
        assert found[f"{cell}/recurrent_kernel"] == (gates, 6, 6, True, 1.0)
    # A GRU has one for its inputs and one for its states.
    rows = 1 if gates == 4 else 2
    assert found[f"{cell}/bias"] == (gates * rows, 1, 6, False, 0.1)


def test_a_cell_of_ones_own_may_have_other_gates():
    class Cell(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(4, 6), name="kernel")

        def call(self, inputs):
            return inputs @ self.kernel

    found = told(Cell(name="lstm_cell"), (4,))
    assert found == {"lstm_cell/kernel": (1, 4, 6, False, 1.0)}


def test_one_matrix_for_each_head():
    layer = layers.MultiHeadAttention(3, 2, name="attention")
    found = told(layer, SEQUENCE, SEQUENCE)
    for name in ("query", "key", "value"):
        assert found[f"{name}/kernel"] == (3, 4, 2, True, 1.0)
        # A vector for each head.
        assert found[f"{name}/bias"] == (3, 1, 2, False, 0.1)
    assert found["attention_output/kernel"] == (3, 2, 4, False, 1.0)
    # Nobody says of this one that it is attention.
    found = told(layers.Conv1D(3, 2, name="query"), SEQUENCE)
    assert found["query/kernel"] == (1, 8, 3, False, 1.0)


def test_vectors_of_tokens_reflectors_and_channels():
    embedding = layers.Embedding(7, 3, name="e")
    assert told(embedding, (4,)) == {"e/embeddings": (7, 1, 3, False, 0.05)}
    found = told(SpectralRNN(6, reflectors=2), SEQUENCE)
    assert found["recurrent/u_reflectors"] == (2, 1, 6, False, 1e-3)
    found = told(layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 5))
    assert (5, 9, 2, True, 1.0) in found.values()
    found = told(layers.SeparableConv1D(4, 3, name="s"), SEQUENCE)
    assert found["s/depthwise_kernel"] == (4, 3, 1, True, 1.0)


def test_blocks_are_what_they_are_said_to_be():
    kernel = built(layers.Dense(6, name="d"), (4,)).kernel
    bias = keras.Variable(np.zeros(6), name="bias")
    scalar = keras.Variable(0.0, name="scale")
    empty = keras.Variable(np.zeros((0, 3)), name="nothing")
    paths = [kernel.path, "x/bias", "x/scale", "x/nothing"]
    variables = [kernel, bias, scalar, empty]

    def shapes(blocks):
        found = slices.slices_of_all(variables, paths, blocks)
        return [tuple(part[:3]) for part in found]

    assert shapes(None) == [(1, 4, 6), (1, 1, 6), (1, 1, 1), (1, 0, 3)]
    assert shapes({"d/kernel": 3})[0] == (3, 4, 2)
    assert shapes({"kernel": "rows"})[0] == (4, 1, 6)
    assert shapes({"kernel": "vector"})[0] == (1, 1, 24)
    assert shapes({"kernel": "matrix", "bias": 2})[:2] == [(1, 4, 6), (2, 1, 3)]
    assert shapes({"default": "matrix"})[1] == (1, 1, 6)
    with pytest.raises(ValueError, match="divide(.|\n)*d/kernel(.|\n)*5"):
        shapes({"d/kernel": 5})
    with pytest.raises(ValueError, match="blocks(.|\n)*other"):
        shapes({"other": 2})


@pytest.mark.parametrize(
    "part,shape",
    [
        (Slices(2, 3, 4, True), (3, 8)),
        (Slices(2, 3, 4, True), (3, 2, 4)),
        (Slices(2, 3, 4), (2, 3, 4)),
        (Slices(5, 9, 2, True), (3, 3, 5, 2)),
        (Slices(1, 1, 6), (6,)),
        (Slices(1, 1, 1), ()),
    ],
)
def test_join_undoes_split(part, shape):
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    stack = part.split(ops.convert_to_tensor(x))
    assert tuple(stack.shape) == part[:3]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(part.join(stack, shape)), x
    )
    if part.side_by_side and len(shape) == 2:
        np.testing.assert_array_equal(
            ops.convert_to_numpy(stack)[1], x[:, part.columns :]
        )


def mean_norm(w, norm):
    """The largest growth of the mean size of entries, by SVD or sums."""
    rows, columns = w.shape
    return {
        1: np.abs(w).sum(axis=1).max() * rows / columns,
        2: np.linalg.norm(w, 2) * np.sqrt(rows / columns),
        "inf": np.abs(w).sum(axis=0).max(),
    }[norm]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6), (6, 1)])
def test_directions_are_the_steepest_of_norm_one(norm, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *shape))
    x[1] = 0.0
    steps = ops.convert_to_numpy(
        slices.directions(ops.convert_to_tensor(x), norm, "exact")
    )
    assert not steps[1].any()
    for g, step in zip(x[::2], steps[::2]):
        assert_close(mean_norm(step, norm), 1.0, 1e-12)
        # No step of norm one gains more: the dual norm in these units.
        dual = oracles.dual_norm(g, norm) * slices.unit(*shape, norm)
        assert_close(np.sum(g * step), dual, 1e-12)
        for _ in range(50):
            other = rng.normal(size=shape)
            other /= mean_norm(other, norm)
            assert np.sum(g * other) <= dual * (1 + 1e-12)


@pytest.mark.parametrize("norm", (1, "inf"))
def test_lengths_are_norms(norm):
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    found = slices.lengths(ops.convert_to_tensor(x), norm)
    expected = [mean_norm(w, norm) for w in x]
    assert_close(ops.convert_to_numpy(found), expected, 1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (1, 6), (6, 1), (1, 1)])
def test_power_steps_converge_to_the_norm_from_below(shape):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, *shape))
    x[1] = 0.0
    vectors = rng.normal(size=(3, shape[1]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.array([mean_norm(w, 2) for w in x])
    stack, vectors = map(ops.convert_to_tensor, (x, vectors))
    for _ in range(60):
        found, vectors = slices.power_step(stack, vectors)
        found = ops.convert_to_numpy(found)
        assert np.all(found <= expected * (1 + 1e-12))
    assert_close(found[::2], expected[::2], 1e-3)
    assert found[1] == 0
