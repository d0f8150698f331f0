"""What a provider of curvature is asked, and what it may keep."""

from typing import NamedTuple


class Slot(NamedTuple):
    """A variable that an optimizer keeps for a provider of curvature.

    Attributes:
        shape: Tuple.
        dtype: String.
        initial: Array of that shape, or `None` for zeros.
    """

    shape: tuple
    dtype: str
    initial: object = None


class Known(NamedTuple):
    """What a provider of curvature knows at the begin of a step.

    Attributes:
        curvature: Tensor `(n,)`, what the step of each block is divided by.
        longest: Tensor `(n,)`, the longest step of each block, or `None`.
        kept: What the provider's `after` is to get.
    """

    curvature: object
    longest: object = None
    kept: object = None


class Curvature:
    """How much a loss bends in each of `n` blocks.

    A provider holds no variables: the optimizer owns those that `slots` asks
    for, and passes their values in and out.
    """

    def slots(self):
        """Dict of `Slot`s by name."""
        return {}

    def measure(self, values, gradients, weights, step):
        """The curvature before a step.

        Args:
            values: Dict of tensors, the values of the slots.
            gradients: List of tensors, or `None` where a block has none.
            weights: List of the variables.
            step: Integer scalar tensor, the number of the step.

        Returns:
            `Known`.
        """
        raise NotImplementedError

    def after(self, kept, lengths, moved):
        """New values of slots after a step.

        Args:
            kept: What `measure` asked to be kept.
            lengths: Tensor `(n,)`, how far each block moves at most, zero for
                those that stay.
            moved: Boolean tensor `(n,)`.

        Returns:
            Dict of tensors, with the slots that change.
        """
        return {}

    def anew(self, weights):
        """New values of slots once weights were set from outside."""
        return {}
