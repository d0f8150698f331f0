"""How often windows that slide over an input meet the same entry."""

import math
from typing import NamedTuple


class Windows(NamedTuple):
    """Sliding windows, one number for each axis they slide along.

    Attributes:
        sizes: Entries that a window reads.
        strides: Steps between windows.
        dilations: Steps between the entries of a window.
        lengths: Lengths of the input, `None` if unknown.
        counts: Numbers of windows, `None` if unknown.
    """

    sizes: tuple
    strides: tuple
    dilations: tuple
    lengths: tuple
    counts: tuple

    def overlap(self):
        """Largest number of windows that read the same entry."""
        return math.prod(
            min(math.ceil(k * math.gcd(s, d) / s), n or k)
            for k, s, d, n in zip(
                self.sizes, self.strides, self.dilations, self.counts
            )
        )

    def smallest(self):
        """A lower bound of the entries of a window that are no padding."""
        return math.prod(
            max(1, k - padding)
            for k, padding in zip(self.sizes, self._padding())
        )

    def _padding(self):
        for k, s, length, n in zip(
            self.sizes, self.strides, self.lengths, self.counts
        ):
            known = length and n
            yield max((n - 1) * s + k - length, 0) if known else k


def layer_windows(layer, sizes, shape, output_shape):
    """The `Windows` of a convolution or pooling layer.

    Args:
        layer: Keras layer with `strides` and `data_format`.
        sizes: Tuple, the size of its window or kernel.
        shape: Shape of its input, without the batch.
        output_shape: Shape of its output, without the batch.

    Returns:
        `Windows`.
    """
    first = layer.data_format == "channels_first"
    axes = slice(1, None) if first else slice(None, -1)
    rank = len(sizes)
    dilations = getattr(layer, "dilation_rate", 1)
    return Windows(
        tuple(sizes),
        _tuple(layer.strides, rank),
        _tuple(dilations, rank),
        tuple(shape[axes]),
        tuple(output_shape[axes]),
    )


def _tuple(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)
