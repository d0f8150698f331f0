"""Loops over time, a chunk of steps in each iteration, on every backend.

Nothing here is differentiated: the recurrence writes its own backward pass,
and the Lipschitz constants need none. So each backend may use its fastest
loop, and none has to keep what its automatic differentiation would.
"""

import keras
from keras import ops
from keras import tree

MAX_CHUNK = 16


class Steps:
    """The steps of one chunk: a list of tensors, each fetched once.

    Args:
        fetch: Function `j -> tensor` of one step.
        length: Integer, the number of steps.
        fetch_all: Function that gives all steps as one tensor, time first;
            `None` to concatenate the single ones.
    """

    def __init__(self, fetch, length, fetch_all=None):
        self._fetch, self._all = fetch, fetch_all
        self._steps = [None] * length

    def __len__(self):
        return len(self._steps)

    def __getitem__(self, j):
        if self._steps[j] is None:
            self._steps[j] = self._fetch(j)
        return self._steps[j]

    def rows(self):
        """All steps one below the other: tensor `(steps * batch, n)`."""
        if self._all is None:
            return ops.concatenate([self[j] for j in range(len(self))], axis=0)
        steps = self._all()
        return ops.reshape(steps, (-1, steps.shape[-1]))


class Tape:
    """What a scan collected of one output.

    Args:
        spans: List of stores, in the order of time.
        merge: Function `store -> tensor`, time first.
    """

    def __init__(self, spans, merge):
        self.spans, self._merge = spans, merge

    def stack(self):
        """One tensor, time first."""
        parts = [self._merge(store) for store in self.spans]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)


def chunked_scan(body, carry, inputs, outputs, length, reverse=False):
    """Runs `body` over chunks of time and collects what it returns.

    Args:
        body: Function `(carry, chunks) -> (carry, new)`. `chunks` is a dict
            with the `Steps` of each of `inputs`; `carry` is a nested
            structure of tensors; `new` is a dict with an entry for each of
            `outputs`.
        carry: Nested structure of tensors.
        inputs: Dict of tensors with time first, and of `Tape`s.
        outputs: Dict `name -> (kind, dtype)`. The kind tells what the body
            gives: a list with a tensor for each `"step"`, or one tensor for
            the `"chunk"`, with an axis of steps in front.
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
        here = {
            name: x.spans[index] if isinstance(x, Tape) else x
            for name, x in inputs.items()
        }
        span = (starts[index], *spans[index])
        carry, stores[index] = _scan_span(
            body, carry, here, outputs, span, reverse
        )
    return carry, {
        name: Tape([store[name] for store in stores], _merge)
        for name in outputs
    }


def scan(step, carry, inputs, outputs=1):
    """Outputs of all steps, as `ops.scan`, with less overhead.

    Args:
        step: Function `(carry, inputs of a step) -> (carry, new)`, where
            `new` is a tensor, or a tuple of them.
        carry: Nested structure of tensors of one dtype.
        inputs: Tensor, or tuple of tensors, with time first.
        outputs: Integer, how many tensors of the dtype of `carry` a step
            gives. Defaults to 1.

    Returns:
        Tensor with time first, or list of them if there are more outputs.
    """
    dtype = keras.backend.standardize_dtype(tree.flatten(carry)[0].dtype)
    named = {str(i): x for i, x in enumerate(tree.flatten(inputs))}
    names = [str(i) for i in range(outputs)]

    def body(carry, chunks):
        collected = {name: [] for name in names}
        for j in range(len(chunks["0"])):
            here = [chunks[name][j] for name in named]
            carry, new = step(carry, tree.pack_sequence_as(inputs, here))
            for name, value in zip(names, tree.flatten(new)):
                collected[name].append(value)
        return carry, collected

    kinds = dict.fromkeys(names, ("step", dtype))
    length = named["0"].shape[0]
    _, tapes = chunked_scan(body, carry, named, kinds, length)
    stacked = [tapes[name].stack() for name in names]
    return stacked if outputs > 1 else stacked[0]


def _spans(length):
    """Pairs `(chunks, steps of each)`: the full chunks, then what is left."""
    if not isinstance(length, int):
        # Which chunks fit is not known before it runs; one step always does.
        return [(length, 1)]
    fair = range(MAX_CHUNK // 2, MAX_CHUNK + 1)
    even = [k for k in fair if length % k == 0]
    steps = even[-1] if even else min(length, MAX_CHUNK)
    rest = length % steps
    return [(length // steps, steps)] + ([(1, rest)] if rest else [])


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def _merge(store):
        array, kind = store
        return array.stack() if kind == "step" else array.concat()

    def _scan_span(body, carry, inputs, outputs, span, reverse):
        start, count, k = span

        def step(n, carry, arrays):
            i = count - 1 - n if reverse else n
            chunks = {name: read(x, i) for name, x in inputs.items()}
            carry, new = body(carry, chunks)
            return n + 1, carry, write(arrays, new, i)

        def read(x, i):
            if isinstance(x, tuple):
                array, kind = x
                if kind == "step":
                    return Steps(lambda j: array.read(i * k + j), k)
                return Steps(lambda j: array.read(i)[j], k)
            return Steps(
                lambda j: _slice(x, start + i * k + j, 1)[0],
                k,
                lambda: _slice(x, start + i * k, k),
            )

        def write(arrays, new, i):
            arrays = dict(arrays)
            for name, (kind, _) in outputs.items():
                if kind == "chunk":
                    arrays[name] = arrays[name].write(i, new[name])
                    continue
                for j, value in enumerate(new[name]):
                    arrays[name] = arrays[name].write(i * k + j, value)
            return arrays

        arrays = {
            name: tf.TensorArray(
                dtype,
                size=count * k if kind == "step" else count,
                clear_after_read=False,
            )
            for name, (kind, dtype) in outputs.items()
        }
        _, carry, arrays = tf.while_loop(
            lambda n, *_: n < count,
            step,
            (0, carry, arrays),
            maximum_iterations=count,
            parallel_iterations=1,
        )
        return carry, {
            name: (arrays[name], outputs[name][0]) for name in arrays
        }

    def _slice(x, begin, size):
        rest = x.shape[1:].as_list()
        sizes = [size] + [-1 if n is None else n for n in rest]
        part = tf.slice(x, [begin] + [0] * len(rest), sizes)
        return tf.ensure_shape(part, [size] + rest)

elif keras.backend.backend() == "jax":
    import jax

    def _merge(store):
        chunks = store["chunks"]
        return chunks.reshape((-1, *chunks.shape[2:]))

    def _scan_span(body, carry, inputs, outputs, span, reverse):
        start, count, k = span

        def chunks(x):
            if isinstance(x, dict):
                return x["chunks"]
            x = x[start : start + count * k]
            return x.reshape((count, k, *x.shape[1:]))

        def step(carry, parts):
            steps = {
                name: Steps(part.__getitem__, part.shape[0], lambda p=part: p)
                for name, part in parts.items()
            }
            carry, new = body(carry, steps)
            return carry, {
                name: ops.stack(value) if kind == "step" else value
                for (name, value), (kind, _) in zip(
                    new.items(), map(outputs.get, new)
                )
            }

        carry, stores = jax.lax.scan(
            step,
            carry,
            {name: chunks(x) for name, x in inputs.items()},
            reverse=reverse,
        )
        return carry, {name: {"chunks": s} for name, s in stores.items()}

else:

    def _merge(store):
        return ops.concatenate(store, axis=0)

    def _scan_span(body, carry, inputs, outputs, span, reverse):
        start, count, k = span
        stores = {name: [None] * count for name in outputs}
        for i in reversed(range(count)) if reverse else range(count):
            begin = start + i * k
            chunks = {}
            for name, x in inputs.items():
                part = x[i] if isinstance(x, list) else x[begin : begin + k]
                chunks[name] = Steps(
                    part.__getitem__, part.shape[0], lambda p=part: p
                )
            carry, new = body(carry, chunks)
            for name, (kind, _) in outputs.items():
                value = new[name]
                stores[name][i] = ops.stack(value) if kind == "step" else value
        return carry, stores
