"""Losses of the papers that Keras lacks."""

from keras import losses
from keras import ops
from keras.saving import register_keras_serializable


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
        y_true: Tensor `(batch, ..., n)`.
        y_pred: Floating tensor `(batch, ..., n)`.

    Example:

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
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred):
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        return ops.sum(ops.square(y_pred - y_true), axis=-1)
