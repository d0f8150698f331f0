"""Losses of the papers that Keras lacks."""

from keras import losses
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks

_REDUCTIONS = (
    None,
    "none",
    "sum",
    "sum_over_batch_size",
    "mean",
    "mean_with_sample_weight",
)


@register_keras_serializable("tf_spectral")
class SumOfSquares(losses.Loss):
    """Sum over the outputs of the squared errors, mean over the examples.

    The objective of the DSGD experiments. `keras.losses.MeanSquaredError`
    is this divided by the number of outputs.

    Args:
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`, which is the mean over the examples.
        name: String. Defaults to `"sum_of_squares"`.
        dtype: As in `keras.losses.Loss`. Defaults to `None`.

    Call arguments:
        y_true: Tensor `(batch, ..., n)`. As in Keras' own losses a last axis
            of length 1 may be left out, or be too many.
        y_pred: Floating tensor `(batch, ..., n)`, or `(batch,)` for one output
            without an axis of its own.

    Raises:
        ValueError: If the shapes do not agree: they are not broadcast.

    Example:

    >>> from tf_spectral.losses import SumOfSquares
    >>> loss = SumOfSquares()
    >>> float(loss([[1.0, 0.0]], [[0.0, 2.0]]))
    5.0

    Reference: Flynn, "The duality structure gradient descent algorithm",
    section 5.
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="sum_of_squares",
        dtype=None,
    ):
        if dtype is not None:
            dtype = checks.dtype_policy("dtype", dtype)
        super().__init__(
            name=checks.text("name", name),
            reduction=checks.choice("reduction", reduction, _REDUCTIONS),
            dtype=dtype,
        )

    def call(self, y_true, y_pred):
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        y_true, y_pred = _aligned(y_true, y_pred)
        return ops.sum(ops.square(y_pred - y_true), axis=-1)


def _aligned(y_true, y_pred):
    """Both with an axis of outputs at the end, and of one shape."""
    received = f"y_true of shape {y_true.shape}, y_pred of shape {y_pred.shape}"
    if len(y_pred.shape) == 1:
        y_pred = ops.expand_dims(y_pred, -1)
    missing = len(y_pred.shape) - len(y_true.shape)
    if missing == 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    elif missing == -1 and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, -1)
    alike = len(y_true.shape) == len(y_pred.shape) and all(
        a == b or a is None or b is None
        for a, b in zip(y_true.shape, y_pred.shape)
    )
    if not alike:
        raise ValueError(
            "Targets and outputs must have one shape, but for a last axis of "
            f"length 1. Received: {received}"
        )
    return y_true, y_pred
