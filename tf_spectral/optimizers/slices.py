"""The matrices and vectors of which a weight consists, each with its norm.

A step of measured length is measured for each of them alone: a kernel is one
matrix, that of an LSTM one for each gate, that of attention one for each head;
an embedding is a vector for each token, reflectors are vectors.
"""

import math
from typing import NamedTuple

from keras import ops

from tf_spectral import checks
from tf_spectral import kernel_names
from tf_spectral.linalg.norms import where_largest
from tf_spectral.linalg.polar import polar_and_nuclear
from tf_spectral.linalg.polar import safe_divisor
from tf_spectral.optimizers.block_steps import polar_options
from tf_spectral.optimizers.weight_values import values_by_weight

# No slice counts as shorter than this: a step as long as a share of nothing
# would be none. Kernels begin at about 1, biases at 0, embeddings at 0.03;
# of a reflector only the direction matters.
FLOORS = {"matrix": 1.0, "vector": 0.1, "token": 0.05, "reflector": 1e-3}

KINDS = ("matrix", "vector", "rows")


class Slices(NamedTuple):
    """A weight as a stack of matrices; a vector is a matrix of one row.

    Attributes:
        count: Integer, how many there are.
        rows: Integer, the inputs of each.
        columns: Integer, the outputs of each.
        side_by_side: Boolean, whether they lie beside each other in the
            columns of the weight, and not below each other.
        floor: Float, the least norm that a slice counts as having.
    """

    count: int
    rows: int
    columns: int
    side_by_side: bool = False
    floor: float = FLOORS["matrix"]

    def split(self, x):
        """A tensor of the shape of the weight as `(count, rows, columns)`."""
        if not self.side_by_side:
            return ops.reshape(x, (self.count, self.rows, self.columns))
        x = ops.reshape(x, (self.rows, self.count, self.columns))
        return ops.transpose(x, (1, 0, 2))

    def join(self, stack, shape):
        """The inverse of `split`."""
        if self.side_by_side:
            stack = ops.transpose(stack, (1, 0, 2))
        return ops.reshape(stack, shape)


def checked_blocks(blocks):
    """The argument `blocks` as plain data.

    Args:
        blocks: `None`, or dict from ends of paths to positive integers or
            one of `KINDS`.

    Returns:
        Dict or `None`.

    Raises:
        ValueError: If it is something else.
    """
    if blocks is None:
        return None
    named = isinstance(blocks, dict) and all(
        isinstance(key, str) and key for key in blocks
    )
    if not named or not blocks:
        raise ValueError(
            "Argument `blocks` must have names of weights as its keys. "
            'Expected a dict such as {"my_cell/kernel": 4}, Received: '
            f"blocks={checks.shown(blocks)}"
        )
    return {
        key: checks.choice(f'blocks["{key}"]', value, KINDS)
        if isinstance(value, str)
        else checks.integer(f'blocks["{key}"]', value, minimum=1)
        for key, value in blocks.items()
    }


def slices_of_all(variables, paths, blocks=None):
    """The slices of each weight.

    Args:
        variables: List of variables.
        paths: List of their paths.
        blocks: What `checked_blocks` returns: an integer is a number of equal
            blocks of columns, `"rows"` makes each row a vector, `"matrix"`
            and `"vector"` take a weight as one. Defaults to `None`.

    Returns:
        List of `Slices`.

    Raises:
        ValueError: If a name fits no weight, or columns do not divide.
    """
    given = values_by_weight("blocks", blocks or {}, paths, "by name")
    return [
        slices_of(variable, path, value)
        for variable, path, value in zip(variables, paths, given)
    ]


def slices_of(variable, path="", given="by name"):
    """The slices of one weight, see `slices_of_all`."""
    shape = tuple(variable.shape)
    if given == "by name":
        return _by_name(kernel_names.names_of(variable), shape)
    columns = shape[-1] if shape else 1
    if given == "vector":
        return Slices(1, 1, math.prod(shape), floor=FLOORS["vector"])
    if given == "rows":
        return _rows(shape, "vector")
    if given == "matrix":
        return Slices(1, math.prod(shape[:-1]), columns)
    if columns % given:
        raise ValueError(
            f"Argument `blocks` does not divide the columns of {path}. "
            f"Expected a divisor of {columns}, Received: {given}"
        )
    return _blocks(shape, given)


def _by_name(names, shape):
    name = names[0] if names else ""
    if name.endswith("reflectors"):
        return _rows(shape, "reflector")
    if name.endswith("embeddings") and len(shape) == 2:
        return _rows(shape, "token")
    if kernel_names.is_into_heads(names, shape):
        if kernel_names.is_of_attention(names):
            return Slices(shape[1], shape[0], shape[2], side_by_side=True)
    if kernel_names.layer_of(names) == "attention_output" and len(shape) == 3:
        return Slices(*shape)
    if kernel_names.is_depthwise(names) and len(shape) > 2:
        window, channels, multiplier = math.prod(shape[:-2]), *shape[-2:]
        return Slices(channels, window, multiplier, side_by_side=True)
    if len(shape) < 2 or "bias" in name:
        count = kernel_names.gates(names, shape)
        count *= math.prod(shape[:-1])
        size = shape[-1] * math.prod(shape[:-1]) if shape else 1
        columns = size // count if count else 0
        return Slices(count, 1, columns, floor=FLOORS["vector"])
    return _blocks(shape, kernel_names.gates(names, shape))


def _rows(shape, kind):
    count = math.prod(shape[:-1])
    return Slices(count, 1, shape[-1] if shape else 1, floor=FLOORS[kind])


def _blocks(shape, count):
    if len(shape) < 2:
        return Slices(count, 1, shape[-1] // count, floor=FLOORS["vector"])
    rows = math.prod(shape[:-1])
    return Slices(count, rows, shape[-1] // count, side_by_side=count > 1)


def unit(rows, columns, norm):
    """What the induced norm is divided by to be relative to the shape.

    Inputs and outputs are measured by the mean of their entries, to the power
    of the norm, and not by the sum: then the shape does not matter (math 4.9).
    """
    ratio = columns / rows
    return {1: ratio, 2: math.sqrt(ratio), "inf": 1.0}[norm]


def directions(stack, norm, accuracy):
    """The steepest steps of norm one, zero for zero.

    Args:
        stack: Tensor `(count, rows, columns)`.
        norm: `1`, `2` or `"inf"`.
        accuracy: Of the polar factor, see `linalg.polar`.

    Returns:
        Tensor of that shape.
    """
    scale = unit(*stack.shape[1:], norm)
    if norm == 2:
        return scale * polar_and_nuclear(stack, **polar_options(accuracy))[0]
    signs = scale * ops.sign(stack)
    return ops.where(where_largest(stack, norm), signs, ops.zeros_like(stack))


def lengths(stack, norm):
    """The norm of each matrix of a stack, for the norms 1 and inf."""
    sums = ops.sum(ops.abs(stack), axis=2 if norm == 1 else 1)
    return ops.max(sums, axis=-1) / unit(*stack.shape[1:], norm)


def power_step(stack, vectors):
    """The norm 2 of each matrix of a stack, by a step of power iteration.

    It is a length, from below, and no bound.

    Args:
        stack: Tensor `(count, rows, columns)`.
        vectors: Tensor `(count, columns)`, of length one or zero.

    Returns:
        Tensors `(count,)` and `(count, columns)`, the vectors for the next
        step.
    """
    there, _ = _normalized(stack @ vectors[:, :, None])
    back, size = _normalized(ops.transpose(stack, (0, 2, 1)) @ there)
    return size / unit(*stack.shape[1:], 2), back[:, :, 0]


def _normalized(columns):
    """Stack `(count, n, 1)` with columns of length one, and their lengths."""
    size = ops.sqrt(ops.sum(columns * columns, axis=1, keepdims=True))
    return columns / safe_divisor(size), size[:, 0, 0]
