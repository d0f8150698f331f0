"""Global bounds of the first two derivatives of losses."""

from typing import NamedTuple

import keras

from tf_spectral.backend.keras_internals import settings_of
from tf_spectral.bounds.exponents import conjugate_root
from tf_spectral.bounds.exponents import pairing
from tf_spectral.bounds.exponents import root
from tf_spectral.losses import SumOfSquares


class Loss(NamedTuple):
    """A recognised loss.

    Attributes:
        kind: One of the keys of `_KINDS`.
        folded: Name of the last activation that belongs to the loss, or
            `None` if the loss reads the output as it is.
        scale: Huber's `delta`, else 1.
        doubt: `None`, or why the constants are no bounds.
    """

    kind: str
    folded: str | None = None
    scale: float = 1.0
    doubt: str | None = None


_KINDS = {
    "sum_of_squares": "SumOfSquares",
    "mean_squared_error": "MeanSquaredError",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    "binary_crossentropy": "BinaryCrossentropy",
    "huber": "Huber",
    "log_cosh": "LogCosh",
}
_FOLDED = {
    "categorical_crossentropy": "softmax",
    "sparse_categorical_crossentropy": "softmax",
    "binary_crossentropy": "sigmoid",
}


def recognise(loss):
    """The `Loss` of a Keras loss object, function or name.

    Args:
        loss: Loss object, function of `keras.losses`, name of one, or
            `"sum_of_squares"`.

    Returns:
        `Loss`.

    Raises:
        ValueError: If the loss has no global constants that are known here,
            sums over the batch, or has its classes on another axis than the
            last.
    """
    loss = _resolve(loss)
    kind = _kind(loss)
    if kind is None:
        raise ValueError(
            "Argument `loss` has no known bounds on its derivatives. "
            f"Expected one of {sorted(_KINDS.values())}, Received: loss={loss}"
        )
    if getattr(loss, "reduction", "mean") in ("sum", "none", None):
        raise ValueError(
            "Argument `loss` must average over the batch: the bounds are "
            "bounds of a mean. Expected reduction='sum_over_batch_size', "
            f"Received: reduction={loss.reduction}"
        )
    settings = _settings(loss)
    if settings.get("axis", -1) != -1:
        raise ValueError(
            "Argument `loss` must have its classes on the last axis. "
            f"Expected axis=-1, Received: axis={settings['axis']}"
        )
    folded = None if settings.get("from_logits") else _FOLDED.get(kind)
    doubt = None
    if settings.get("ignore_class") is not None:
        doubt = "`ignore_class` changes the weights of the positions"
    if not 0 <= settings.get("label_smoothing", 0) <= 1:
        doubt = "`label_smoothing` takes targets out of the simplex"
    dtype = str(getattr(loss, "dtype", "float32"))
    if not dtype.startswith(("float32", "float64")):
        doubt = f"{dtype} rounds more than these bounds allow for"
    return Loss(kind, folded, float(settings.get("delta", 1.0)), doubt)


def loss_constants(loss, q, outputs, positions, residual=None):
    """Bounds `d1`, `d2` of the derivatives of a loss by the network's output.

    Args:
        loss: `Loss`.
        q: 1, 2 or `"inf"`.
        outputs: Positive integer, the size of the last axis.
        positions: Positive integer, the product of the axes between the batch
            and the last one. The loss is a mean over them.
        residual: Positive float, bound of `|y - z|` elementwise. Only read by
            losses of squares. Defaults to `None`.

    Returns:
        Pair of floats: `d1` bounds the conjugate norm of the gradient, `d2`
        the Hessian as a bilinear form of the q-norm.

    Example:

    >>> from tf_spectral.bounds.losses import loss_constants
    >>> from tf_spectral.bounds.losses import recognise
    >>> loss = recognise("sum_of_squares")
    >>> loss_constants(loss, 1, outputs=10, positions=1, residual=2.0)
    (4.0, 2.0)

    Reference: Flynn, "The duality structure gradient descent algorithm",
    proposition 4.3, with the width of the output.
    """
    n = outputs
    one = conjugate_root(n, q)
    two = pairing(n, q)
    if loss.kind == "sum_of_squares":
        d1, d2 = 2 * residual * one, 2 * two
    elif loss.kind == "mean_squared_error":
        d1, d2 = 2 * residual * one / n, 2 * two / n
    elif loss.kind == "binary_crossentropy":
        d1, d2 = one / n, two / (4 * n)
    elif loss.kind in ("huber", "log_cosh"):
        d1, d2 = loss.scale * one / n, two / n
    else:
        # Both attained: softmax minus target, and its covariance.
        d1 = conjugate_root(2, q)
        d2 = conjugate_root(4, q) / 4
    # A mean over positions, each with its own block of the output.
    d1 *= 1 / root(positions, q)
    d2 *= pairing(positions, q) / positions
    return d1, d2


def has_classes(loss):
    """Whether the last axis of the outputs is one distribution."""
    return loss.kind in (
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
    )


def needs_residual(loss):
    """Whether the gradient of the loss grows with the error."""
    return loss.kind in ("sum_of_squares", "mean_squared_error")


def _resolve(loss):
    if isinstance(loss, str):
        if loss in ("sum_of_squares", "tf_spectral>SumOfSquares"):
            return SumOfSquares()
        try:
            return keras.losses.get(loss)
        except ValueError:
            return loss
    return loss


def _settings(loss):
    settings = loss.get_config() if hasattr(loss, "get_config") else {}
    # `Huber.get_config` leaves out its `delta`.
    return {**settings, **settings_of(loss)}


def _kind(loss):
    if "call" in getattr(loss, "__dict__", {}):
        return None  # another loss than its class says
    if type(loss) is SumOfSquares:
        return "sum_of_squares"
    for function, class_name in _KINDS.items():
        if type(loss) is getattr(keras.losses, class_name, None):
            return function
        if callable(loss) and loss is getattr(keras.losses, function, None):
            return function
    return None
