"""The usual size of gradients, also where its square is no float."""

from keras import ops

from tf_spectral.linalg.polar import largest_entry
from tf_spectral.linalg.polar import safe_divisor
from tf_spectral.linalg.polar import scaled_down

# Of the mean of squares.
DECAY = 0.99


def size(x, axis=None):
    """The root of the sum of squares.

    Args:
        x: Tensor.
        axis: Tuple of axes to sum along. Defaults to `None`: all.
    """
    scale = largest_entry(x, axis)
    scaled = scaled_down(x, scale)
    total = ops.sqrt(ops.sum(scaled * scaled, axis=axis))
    return ops.reshape(scale, total.shape) * total


def root_mean(old, new):
    """A step of the root of a moving average of squares, from zero."""
    scale = safe_divisor(ops.maximum(old, new))
    old, new = scaled_down(old, scale), scaled_down(new, scale)
    return scale * ops.sqrt(DECAY * old * old + (1 - DECAY) * new * new)


def corrected(root, count):
    """What `root_mean` would be without the zero that it began from.

    Args:
        root: Tensor.
        count: Scalar tensor, the number of steps, at least one.
    """
    return root / ops.sqrt(1 - DECAY**count)


def quotient(a, b):
    """`a / b`, zero where `b` is."""
    return ops.where(b == 0, ops.zeros_like(a), a / safe_divisor(b))
