"""A loop over time that takes some steps in each iteration."""

from keras import ops
from keras import tree

# Longer chunks take longer to compile, shorter ones longer to run.
_MAX_CHUNK = 16


def scan(step, carry, inputs):
    """Outputs of all steps, as `ops.scan`, with less overhead.

    Args:
        step: Function `(carry, inputs of a step) -> (carry, outputs)`.
        carry: Nested structure of tensors.
        inputs: Nested structure of tensors with time, of known length, first.

    Returns:
        Nested structure of tensors with time first.
    """
    length = tree.flatten(inputs)[0].shape[0]
    chunk = _chunk(length)
    full = length - length % chunk
    parts = []
    for start, stop, size in ((0, full, chunk), (full, length, 1)):
        if start < stop:
            here = tree.map_structure(lambda x, a=start, b=stop: x[a:b], inputs)
            carry, outputs = _scan_chunks(step, carry, here, size)
            parts.append(outputs)
    if len(parts) == 1:
        return parts[0]
    return tree.map_structure(lambda *xs: ops.concatenate(xs, axis=0), *parts)


def _chunk(length):
    """The largest divisor if it is long enough, else what fits."""
    fair = range(_MAX_CHUNK // 2, _MAX_CHUNK + 1)
    even = [size for size in fair if length % size == 0]
    return even[-1] if even else min(length, _MAX_CHUNK)


def _scan_chunks(step, carry, inputs, size):
    def split(x):
        return ops.reshape(x, (-1, size, *ops.shape(x)[1:]))

    def chunk(carry, inputs):
        collected = []
        for j in range(size):
            here = tree.map_structure(lambda x, j=j: x[j], inputs)
            carry, outputs = step(carry, here)
            collected.append(outputs)
        return carry, tree.map_structure(
            lambda *xs: ops.stack(xs, axis=0), *collected
        )

    inputs = tree.map_structure(split, inputs)
    count = tree.flatten(inputs)[0].shape[0]
    if count == 1:
        first = tree.map_structure(lambda x: x[0], inputs)
        return chunk(carry, first)
    # On TensorFlow `ops.scan` wants outputs that look like the carry.
    first = tree.map_structure(lambda x: x[0], inputs)
    rest = tree.map_structure(lambda x: x[1:], inputs)
    start = chunk(carry, first)
    (carry, _), (_, outputs) = ops.scan(
        lambda carry, here: 2 * (chunk(carry[0], here),), start, rest
    )
    outputs = tree.map_structure(
        lambda x, y: ops.concatenate([x[None], y], axis=0), start[1], outputs
    )
    return carry, tree.map_structure(
        lambda x: ops.reshape(x, (-1, *ops.shape(x)[2:])), outputs
    )
