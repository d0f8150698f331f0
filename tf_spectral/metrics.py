"""Metrics of the papers that Keras lacks."""

import keras
from keras import metrics
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks


@register_keras_serializable("tf_spectral")
class Perplexity(metrics.MeanMetricWrapper):
    """Perplexity of a language model: e to the mean cross-entropy of a token.

    Every token counts the same, also where sequences differ in length or
    tokens are masked. A model that guesses among n tokens has perplexity n.
    Before any token is seen the metric is 1.

    (For the precision among the k highest scores of a multi-label model there
    is `keras.metrics.Precision(top_k=k)`, for scores of any range.)

    Args:
        from_logits: Whether predictions are logits in the place of
            probabilities. Defaults to `False`.
        name: String. Defaults to `"perplexity"`.
        dtype: Dtype of the sums, as in `keras.metrics.Metric`. Defaults to
            `None`. Half-precision predictions are taken to this dtype first.

    Call arguments:
        y_true: Integer tensor `(batch, ...)` or `(batch, ..., 1)`.
        y_pred: Floating tensor `(batch, ..., tokens)`. If it carries a Keras
            mask, of shape `(batch, ...)`, masked tokens do not count.
        sample_weight: Weights of tokens, `(batch, ...)`, or of sequences,
            `(batch,)`, or any shape that these start with. Defaults to
            `None`, all 1. Use `weighted_metrics` in `compile`.

    Raises:
        ValueError: If the shape of `sample_weight` does not fit.

    Example:

    >>> from tf_spectral.metrics import Perplexity
    >>> metric = Perplexity()
    >>> metric.update_state([[0, 1]], [[[0.5, 0.5], [0.5, 0.5]]])
    >>> float(metric.result())
    2.0

    Reference: Zhang et al., [2018](https://arxiv.org/abs/1803.09327), table 3.
    """

    def __init__(self, from_logits=False, name="perplexity", dtype=None):
        from_logits = checks.boolean("from_logits", from_logits)
        if dtype is not None:
            dtype = checks.dtype_policy("dtype", dtype)
        super().__init__(
            _cross_entropies, name=checks.text("name", name), dtype=dtype
        )
        self._fn_kwargs = {"from_logits": from_logits, "dtype": self.dtype}
        self.from_logits = from_logits
        # For callbacks that watch it with mode="auto".
        self._direction = "down"

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = map(ops.convert_to_tensor, (y_true, y_pred))
        shape = ops.shape(y_pred)[:-1]
        weights = ops.ones(shape, dtype=self.dtype)
        if sample_weight is not None:
            weights = weights * _align(sample_weight, weights)
        # Keras sums the means of sequences; times their lengths, it sums over
        # tokens. It is left to Keras to find the mask, and does so in all its
        # versions only if there are weights.
        for size in shape[1:]:
            weights = weights * ops.cast(size, self.dtype)
        return super().update_state(y_true, y_pred, weights)

    def result(self):
        return ops.exp(super().result())

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype,
            "from_logits": self.from_logits,
        }


def _cross_entropies(y_true, y_pred, from_logits, dtype):
    if keras.backend.standardize_dtype(y_pred.dtype) != "float64":
        y_pred = ops.cast(y_pred, dtype)
    return keras.losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=from_logits
    )


def _align(weights, like):
    weights = ops.cast(ops.convert_to_tensor(weights), like.dtype)
    shape, wanted = tuple(weights.shape), tuple(like.shape)
    if len(shape) == len(wanted) + 1 and shape[-1] == 1:
        weights, shape = ops.squeeze(weights, -1), shape[:-1]
    fits = len(shape) <= len(wanted) and all(
        a == b or a in (1, None) or b is None for a, b in zip(shape, wanted)
    )
    if not fits:
        raise ValueError(
            "Argument `sample_weight` must give weights of tokens or of "
            f"sequences. Expected the shape {wanted} or a beginning of it, "
            f"Received: sample_weight of shape {shape}"
        )
    for _ in range(len(wanted) - len(shape)):
        weights = ops.expand_dims(weights, -1)
    return weights
