"""A softmax over many words that trains on some of them.

The full one costs a product with every word and a pass over `tokens x words`
numbers for each token. Here the frequent words, of which most text consists,
are all in the sum; of the rare ones it takes a few that are drawn by their
counts, each weighted by one over its expected number (Bengio and Senecal,
2003). Evaluation is exact.
"""

import keras
import numpy as np
from keras import ops


class SampledSoftmax(keras.layers.Layer):
    """Output layer and cross-entropy of a language model.

    Args:
        counts: How often each word occurs, the most frequent word first.
        frequent: Positive integer, how many words are always in the sum.
        samples: Positive integer, how many others are drawn for a batch.
        seed: Integer. Defaults to `None`.
    """

    def __init__(self, counts, frequent, samples, seed=None, **kwargs):
        super().__init__(**kwargs)
        counts = np.asarray(counts, dtype="float64")
        if np.any(np.diff(counts) > 0):
            raise ValueError(
                "Argument `counts` must have the most frequent word first. "
                f"Received: counts={counts}"
            )
        self.words, self.frequent = len(counts), min(frequent, len(counts))
        self.samples = samples if self.frequent < self.words else 0
        if frequent < 1 or samples < 1:
            raise ValueError(
                "Arguments `frequent` and `samples` must be positive. "
                f"Received: frequent={frequent}, samples={samples}"
            )
        rare = counts[self.frequent :]
        self.shares = (rare / max(rare.sum(), 1.0)).astype("float32")
        self.ends = np.cumsum(self.shares, dtype="float64").astype("float32")
        self.generator = keras.random.SeedGenerator(seed)

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(self.words, shape[-1]), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(shape=(self.words,), initializer="zeros")

    def call(self, hidden):
        """Logits of all words."""
        return hidden @ ops.transpose(self.kernel) + self.bias

    def sampled_loss(self, targets, hidden):
        """The mean cross-entropy of a batch, for training."""
        hidden = ops.reshape(hidden, (-1, ops.shape(hidden)[-1]))
        targets = ops.cast(ops.reshape(targets, (-1,)), "int32")
        words, weights = self.draw()
        others = hidden @ ops.transpose(ops.take(self.kernel, words, axis=0))
        others = others + ops.take(self.bias, words) + weights
        # The target is counted once, by itself.
        same = ops.equal(targets[:, None], words[None])
        others = ops.where(same, ops.cast(-1e9, others.dtype), others)
        kernel = ops.take(self.kernel, targets, axis=0)
        target = ops.sum(hidden * kernel, axis=-1)
        target = target + ops.take(self.bias, targets)
        total = ops.logaddexp(ops.logsumexp(others, axis=-1), target)
        return ops.mean(total - target)

    def draw(self):
        """Words of the sum, and the logarithms of their weights."""
        frequent = ops.arange(self.frequent, dtype="int32")
        if not self.samples:
            return frequent, ops.zeros((self.frequent,), self.compute_dtype)
        places = keras.random.uniform((self.samples,), seed=self.generator)
        rare = ops.searchsorted(ops.convert_to_tensor(self.ends), places)
        rare = ops.clip(ops.cast(rare, "int32"), 0, len(self.ends) - 1)
        expected = self.samples * ops.take(self.shares, rare)
        weights = ops.concatenate(
            [ops.zeros((self.frequent,)), -ops.log(expected)]
        )
        words = ops.concatenate([frequent, rare + self.frequent])
        return words, ops.cast(weights, self.compute_dtype)
