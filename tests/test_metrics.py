"""Perplexity, and the precision at k that Keras already has."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import BACKEND
from tests.helpers import assert_close
from tests.helpers import evaluate
from tf_spectral.metrics import Perplexity

JIT = (False, True) if BACKEND == "tensorflow" else ("auto",)


def cross_entropies(labels, logits):
    logits = np.asarray(logits, "float64")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    norms = np.log(np.exp(shifted).sum(axis=-1))
    return norms - np.take_along_axis(shifted, labels[..., None], -1)[..., 0]


def perplexity(labels, logits, weights=None):
    errors = cross_entropies(labels, logits)
    if weights is not None:
        weights = np.broadcast_to(weights, errors.shape)
    return np.exp(np.average(errors, weights=weights))


def probabilities(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def measured(*updates, **kwargs):
    metric = Perplexity(**kwargs)
    for update in updates:
        metric.update_state(*update)
    return ops.convert_to_numpy(metric.result())


@pytest.fixture
def text():
    rng = np.random.default_rng(0)
    labels = rng.integers(11, size=(4, 5)).astype("int32")
    return labels, 3 * rng.normal(size=(4, 5, 11)).astype("float32")


def test_perplexity_of_lists():
    assert measured(([[0, 1]], [[[0.5, 0.5], [0.5, 0.5]]])) == 2.0


def test_perplexity_in_all_modes(text, mode):
    labels, logits = text
    metric = Perplexity(from_logits=True)

    def update(labels, logits):
        state = metric.stateless_reset_state()
        state = metric.stateless_update_state(state, labels, logits)
        return metric.stateless_result(state)

    found = evaluate(update, labels, logits, mode=mode)
    assert_close(found, perplexity(labels, logits), 1e-6)


@pytest.mark.parametrize("from_logits", (False, True))
def test_every_token_counts_the_same(text, from_logits):
    labels, logits = text
    parts = [(labels[:1], logits[:1]), (labels[1:, :2], logits[1:, :2])]
    flat = [
        np.concatenate([a.reshape(-1, *a.shape[2:]) for a in arrays])
        for arrays in zip(*parts)
    ]
    if not from_logits:
        parts = [(y, probabilities(z)) for y, z in parts]
    found = measured(*parts, from_logits=from_logits)
    assert_close(found, perplexity(*flat), 1e-6)


def test_labels_with_an_axis_of_one_and_without_steps(text):
    labels, logits = text
    found = measured((labels[..., None], logits), from_logits=True)
    assert_close(found, perplexity(labels, logits), 1e-6)
    found = measured((labels[:, 0], logits[:, 0]), from_logits=True)
    assert_close(found, perplexity(labels[:, 0], logits[:, 0]), 1e-6)


@pytest.mark.parametrize("shape", ((), (4,), (4, 1), (4, 5), (4, 5, 1)))
def test_sample_weights(text, shape):
    labels, logits = text
    weights = np.random.default_rng(1).random(shape).astype("float32")
    grid = weights[..., 0] if len(shape) == 3 else weights
    if grid.ndim == 1:
        grid = grid[:, None]
    halves = [(a[:2], a[2:]) for a in (labels, logits)]
    halves.append((weights[:2], weights[2:]) if shape else (weights,) * 2)
    found = measured(*zip(*halves), from_logits=True)
    assert_close(found, perplexity(labels, logits, grid), 1e-6)


def test_weights_that_do_not_fit(text):
    with pytest.raises(ValueError, match=r"`sample_weight`.*\(4, 5\)"):
        measured((*text, np.ones((5,), "float32")), from_logits=True)
    with pytest.raises(ValueError, match=r"`sample_weight`.*\(4, 5, 11\)"):
        measured((*text, np.ones((4, 5, 11), "float32")), from_logits=True)


def test_guessing_has_the_size_of_the_vocabulary():
    labels = np.arange(6).reshape(2, 3)
    assert_close(
        measured((labels, np.zeros((2, 3, 50))), from_logits=True), 50.0, 1e-6
    )
    assert measured() == 1.0


def test_half_precision_is_summed_in_single(text):
    labels, logits = text
    rounded = ops.cast(logits, "bfloat16")
    exact = ops.convert_to_numpy(ops.cast(rounded, "float32"))
    found = measured((labels, rounded), from_logits=True)
    assert found.dtype == np.float32
    assert_close(found, perplexity(labels, exact), 1e-6)
    double = measured(
        (labels, logits.astype("float64")), from_logits=True, dtype="float64"
    )
    # Keras' own means know no float64 on JAX and PyTorch (`result_type`).
    tolerance = 1e-12 if BACKEND == "tensorflow" else 1e-6
    assert_close(double, perplexity(labels, logits), tolerance)


def language_model(jit_compile="auto"):
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(11, 4, mask_zero=True),
            keras.layers.SimpleRNN(6, return_sequences=True),
            keras.layers.Dense(11),
        ]
    )
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[Perplexity(from_logits=True, name="plain")],
        weighted_metrics=[Perplexity(from_logits=True, name="weighted")],
        jit_compile=jit_compile,
    )
    return model


@pytest.mark.parametrize("jit_compile", JIT)
@pytest.mark.costly
def test_masks_and_weights_in_evaluate(jit_compile):
    rng = np.random.default_rng(2)
    x = rng.integers(1, 11, size=(5, 7))
    x[1, 4:] = x[3, 1:] = 0
    y = rng.integers(11, size=(5, 7))
    weights = rng.random((5, 7)).astype("float32")
    model = language_model(jit_compile)
    # On PyTorch a masked Keras loss rescales the weights in place, batch by
    # batch, before the metrics see them. In one batch that does no harm.
    size = 5 if BACKEND == "torch" else 2
    found = model.evaluate(
        x,
        y,
        sample_weight=weights,
        batch_size=size,
        verbose=0,
        return_dict=True,
    )
    logits = model.predict(x, verbose=0)
    assert_close(found["plain"], perplexity(y, logits, x > 0), 1e-5)
    assert_close(
        found["weighted"], perplexity(y, logits, (x > 0) * weights), 1e-5
    )


def test_callbacks_know_that_less_is_better():
    x = np.ones((4, 3), "int32")
    stop = keras.callbacks.EarlyStopping("val_plain", patience=5)
    history = language_model().fit(
        x, x, validation_data=(x, x), epochs=2, callbacks=[stop], verbose=0
    )
    values = history.history["val_plain"]
    assert values[1] < values[0]
    assert stop.best == values[1]


def test_perplexity_is_saved():
    metric = Perplexity(from_logits=True, name="ppl", dtype="float64")
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert isinstance(copy, Perplexity)
    assert (copy.from_logits, copy.name, copy.dtype) == (True, "ppl", "float64")


def precision_at(k, labels, scores, weights=None):
    top = np.argsort(-scores, axis=1)[:, :k]
    hits = np.take_along_axis(labels, top, axis=1).mean(axis=1)
    return np.average(hits, weights=weights)


@pytest.mark.parametrize("jit_compile", JIT)
@pytest.mark.costly
def test_precision_at_k_of_keras(jit_compile):
    """What the docs promise of Keras: logits, weights, batches, k > labels."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(7, 5)).astype("float32")
    y = (rng.random((7, 9)) < 0.3).astype("float32")
    weights = rng.random(7).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(9)])
    model.compile(
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.Precision(top_k=k, name=f"plain_{k}") for k in (1, 5)
        ],
        weighted_metrics=[keras.metrics.Precision(top_k=3, name="weighted")],
        jit_compile=jit_compile,
    )
    found = model.evaluate(
        x, y, sample_weight=weights, batch_size=3, verbose=0, return_dict=True
    )
    scores = model.predict(x, verbose=0)
    assert_close(found["plain_1"], precision_at(1, y, scores), 1e-6)
    assert_close(found["plain_5"], precision_at(5, y, scores), 1e-6)
    assert_close(found["weighted"], precision_at(3, y, scores, weights), 1e-6)
