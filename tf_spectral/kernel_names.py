"""What the name and the shape of a weight tell of the matrices in it.

The names are those that Keras gives to what its layers hold.
"""

import re

_CELL = re.compile(r"(?:spectral_)?(lstm|gru|conv_lstm)_cell(_\d+)?")
_GATES = {"lstm": 4, "gru": 3, "conv_lstm": 4}
_INTO_HEADS = ("query", "key", "value")


def names_of(weight):
    """The parts of a variable's path, the last first; none of a tensor."""
    path = getattr(weight, "path", None)
    return path.split("/")[::-1] if isinstance(path, str) else []


def layer_of(names):
    """The name of the layer that holds a weight, maybe empty."""
    return names[1] if len(names) > 1 else ""


def is_into_heads(names, shape):
    """Whether a weight looks like attention's map `(in, heads, size)`."""
    return len(shape) == 3 and layer_of(names) in _INTO_HEADS


def is_of_attention(names):
    """Whether a layer around the one that holds a weight is attention."""
    # A convolution may be named `query`, too.
    return any("attention" in name for name in names[2:])


def is_depthwise(names):
    """Whether a kernel `(window, ..., channels, m)` mixes no channels."""
    return bool(names) and "depthwise" in f"{layer_of(names)}/{names[0]}"


def gates(names, shape):
    """How many gates lie side by side in the last axis of a weight."""
    if not names or not shape:
        return 1
    if names[0] == "recurrent_kernel" and len(shape) > 1:
        inputs, columns = shape[-2:]
        if inputs and not columns % inputs:
            return columns // inputs
    cell = _CELL.fullmatch(layer_of(names))
    count = _GATES[cell[1]] if cell and names[0] in ("kernel", "bias") else 1
    # Somebody's own cell may have the name and other gates.
    return 1 if shape[-1] % count else count
