"""SampledSoftmax against the cross-entropy of a plain softmax in NumPy."""

import keras
import numpy as np
import pytest

from support.sampled_softmax import SampledSoftmax

WORDS, UNITS = 50, 6
COUNTS = np.arange(WORDS + 30, 30, -1)


def built(frequent, samples, counts=COUNTS, dtype="float64"):
    layer = SampledSoftmax(counts, frequent, samples, seed=3, dtype=dtype)
    layer.build((None, 4, UNITS))
    rng = np.random.default_rng(0)
    for variable in (layer.kernel, layer.bias):
        variable.assign(rng.normal(size=variable.shape))
    return layer


def batch(size=8):
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(size, 4, UNITS))
    return rng.integers(0, WORDS, (size, 4)), hidden


def logits_of(layer, hidden):
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    return hidden @ kernel.T + keras.ops.convert_to_numpy(layer.bias)


def cross_entropy(logits, targets):
    logits = logits.reshape(-1, WORDS)
    target = logits[np.arange(len(logits)), targets.reshape(-1)]
    return np.mean(np.log(np.exp(logits).sum(-1)) - target)


def test_call_gives_the_logits_of_all_words():
    layer, (_, hidden) = built(10, 5), batch()
    outputs = keras.ops.convert_to_numpy(layer(hidden))
    np.testing.assert_allclose(outputs, logits_of(layer, hidden), rtol=1e-12)


@pytest.mark.parametrize("frequent", [WORDS, WORDS + 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_is_exact_where_all_words_are_frequent(frequent, dtype):
    layer, (targets, hidden) = built(frequent, 5, dtype=dtype), batch()
    hidden = keras.ops.cast(hidden, dtype)
    expected = cross_entropy(
        logits_of(layer, keras.ops.convert_to_numpy(hidden)), targets
    )
    loss = float(layer.sampled_loss(targets, hidden))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "target", [2, pytest.param(49, marks=pytest.mark.slow)]
)
def test_the_sum_of_the_others_is_unbiased(target):
    layer, (_, hidden) = built(10, 20), batch(1)
    hidden = hidden[:, :1]
    exponentials = np.exp(logits_of(layer, hidden)[0, 0])
    # What the loss says of the sum: log(others + own) - log(own).
    own = exponentials[target]
    found = np.array(
        [
            np.exp(float(layer.sampled_loss([[target]], hidden))) * own - own
            for _ in range(150)
        ]
    )
    error = found.std() / np.sqrt(len(found))
    assert error > 0
    assert abs(found.mean() - (exponentials.sum() - own)) < 4 * error


def test_words_that_never_occur_are_never_drawn():
    counts = np.where(np.arange(WORDS) < 30, COUNTS, 0)
    layer = built(10, 200, counts)
    words, weights = layer.draw()
    assert keras.ops.convert_to_numpy(words).max() < 30
    assert np.isfinite(keras.ops.convert_to_numpy(weights)).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([1, 2], 1, 1), "most frequent word first"),
        ((COUNTS, 0, 5), "frequent"),
        ((COUNTS, 10, 0), "samples"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SampledSoftmax(*arguments)
