"""Loops over time, a chunk of steps in each iteration, on every backend.

Nothing here is differentiated: the recurrence that uses it writes its own
backward pass. So each backend may use its fastest loop, and none has to keep
what its automatic differentiation would.
"""

from typing import NamedTuple

import keras
from keras import ops

CHUNK = 8


class Tape:
    """What a scan collected of one output, chunk by chunk.

    Args:
        spans: List of stores of chunks, in the order of time.
        merge: Function `store -> tensor`, time first.
    """

    def __init__(self, spans, merge):
        self.spans, self._merge = spans, merge

    def stack(self):
        """One tensor, time first."""
        parts = [self._merge(store) for store in self.spans]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)


def chunked_scan(body, carry, inputs, dtypes, length, reverse=False):
    """Runs `body` over chunks of time and collects what it returns.

    Args:
        body: Function `(carry, chunks) -> (carry, outputs)`. `chunks` has an
            entry for each of `inputs`, some consecutive steps of it; `carry`
            and `outputs` are tuples of tensors.
        carry: Tuple of tensors.
        inputs: Tuple of tensors with time first, and of `Tape`s.
        dtypes: Tuple of the dtypes of the outputs.
        length: Number of steps: an integer, or on TensorFlow a scalar tensor.
        reverse: Boolean, whether to go from the last chunk to the first.

    Returns:
        Tuple `(carry, tapes)`, with a `Tape` for each of the outputs.
    """
    spans = _spans(length)
    starts = [0, spans[0][0] * spans[0][1]]
    order = list(range(len(spans)))
    stores = [None] * len(spans)
    for index in reversed(order) if reverse else order:
        carry, stores[index] = _scan_span(
            body,
            carry,
            tuple(x.spans[index] if isinstance(x, Tape) else x for x in inputs),
            dtypes,
            (starts[index], *spans[index]),
            reverse,
        )
    return carry, tuple(Tape(list(s), _merge) for s in zip(*stores))


def _spans(length):
    """Pairs `(chunks, steps of each)`: the full chunks, then what is left."""
    if not isinstance(length, int):
        return [(length // CHUNK, CHUNK), (length % CHUNK, 1)]
    steps = length
    if length > 2 * CHUNK:
        divisors = [k for k in range(CHUNK, 2 * CHUNK + 1) if length % k == 0]
        steps = divisors[-1] if divisors else CHUNK
    rest = length % steps
    return [(length // steps, steps)] + ([(1, rest)] if rest else [])


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def _merge(store):
        return store.concat()

    def _scan_span(body, carry, inputs, dtypes, span, reverse):
        start, count, k = span

        def read(x, i):
            if isinstance(x, tf.TensorArray):
                return x.read(i)
            rest = x.shape[1:].as_list()
            size = [k] + [-1 if n is None else n for n in rest]
            chunk = tf.slice(x, [start + i * k] + [0] * len(rest), size)
            return tf.ensure_shape(chunk, [k] + rest)

        def step(n, carry, stores):
            i = count - 1 - n if reverse else n
            carry, outputs = body(carry, tuple(read(x, i) for x in inputs))
            stores = tuple(s.write(i, o) for s, o in zip(stores, outputs))
            return n + 1, carry, stores

        stores = tuple(
            tf.TensorArray(d, size=count, clear_after_read=False)
            for d in dtypes
        )
        _, carry, stores = tf.while_loop(
            lambda n, *_: n < count,
            step,
            (0, carry, stores),
            maximum_iterations=count,
            parallel_iterations=1,
        )
        return carry, stores

elif keras.backend.backend() == "jax":
    import jax

    class Chunks(NamedTuple):
        """Chunks along a first axis of their own."""

        chunks: jax.Array

    def _merge(store):
        shape = store.chunks.shape
        return store.chunks.reshape((-1, *shape[2:]))

    def _scan_span(body, carry, inputs, dtypes, span, reverse):
        start, count, k = span

        def chunks(x):
            if isinstance(x, Chunks):
                return x.chunks
            x = x[start : start + count * k]
            return x.reshape((count, k, *x.shape[1:]))

        carry, stores = jax.lax.scan(
            body, carry, tuple(chunks(x) for x in inputs), reverse=reverse
        )
        return carry, tuple(Chunks(s) for s in stores)

else:

    def _merge(store):
        return ops.concatenate(store, axis=0)

    def _scan_span(body, carry, inputs, dtypes, span, reverse):
        start, count, k = span
        collected = []
        for i in reversed(range(count)) if reverse else range(count):
            begin = start + i * k
            chunks = tuple(
                x[i] if isinstance(x, list) else x[begin : begin + k]
                for x in inputs
            )
            carry, outputs = body(carry, chunks)
            collected.append(outputs)
        if reverse:
            collected.reverse()
        return carry, [list(column) for column in zip(*collected)]
