"""A recurrent layer's pass through time, with a backward pass of its own.

    h_t = f(x_t K + b + h_{t-1} R),        t = 1 ... T

Forward keeps the states h_t and nothing else. Backward carries only
`delta_t`, the cotangent of the argument of f, from step to step; what the
weights get is summed chunk by chunk, in products of large matrices over rows
that are still in the cache.
"""

from keras import ops

from tf_spectral.layers.modrelu import modrelu
from tf_spectral.layers.time_loop import chunked_scan
from tf_spectral.layers.transitions import outer
from tf_spectral.linalg.checks import working_dtype


def recurrence(
    x,
    kernel,
    transition,
    initial_state,
    activation,
    pullback,
    bias=None,
    modrelu_bias=None,
    mask=None,
    state_mask=None,
    return_sequences=False,
):
    """States of `h_t = f(x_t K + b + (h_{t-1} * state_mask) R)`.

    Args:
        x: Floating tensor `(T, batch, d)`, time first, `T >= 1`.
        kernel: Tensor `(d, n)`.
        transition: `Dense` or `DiagonalPlusLowRank`, the matrix R.
        initial_state: Tensor `(batch, n)`.
        activation: Elementwise function f; not used if `modrelu_bias` is
            given.
        pullback: Function of the cotangent and the value of f, from
            `slopes.pullback_from_output`.
        bias: Tensor `(n,)` or `None`.
        modrelu_bias: Tensor `(n,)`, makes f the modReLU with this bias.
        mask: Boolean tensor `(T, batch)`: where it is false the state stays
            as it was. Or `None`.
        state_mask: Tensor `(batch, n)` (recurrent dropout) or `None`.
        return_sequences: Boolean, whether to return all states.

    Returns:
        Tensor `(T, batch, n)` of all states, or `(batch, n)` of the last.
    """
    names, values = zip(
        *(
            (name, value)
            for name, value in (
                ("x", x),
                ("kernel", kernel),
                ("initial_state", initial_state),
                ("bias", bias),
                ("modrelu_bias", modrelu_bias),
                ("state_mask", state_mask),
                ("mask", None if mask is None else ops.cast(mask, x.dtype)),
                *(("transition", tensor) for tensor in transition),
            )
            if value is not None
        )
    )
    fixed = len(values) - len(transition)

    def unpack(values):
        w = dict(zip(names[:fixed], values))
        return w, type(transition)(*values[fixed:])

    @ops.custom_gradient
    def run(*values):
        w, matrix = unpack(values)
        last, states, entering = _forward(w, matrix, activation)
        output = states.stack() if return_sequences else last

        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            cotangents = _backward(
                w,
                matrix,
                pullback,
                # The stacked states serve both uses: keep no second copy.
                output if return_sequences else states,
                entering,
                upstream,
                return_sequences,
            )
            return tuple(
                ops.cast(c, v.dtype) for c, v in zip(cotangents, values)
            )

        return output, grad

    return run(*values)


def _forward(w, matrix, activation):
    advance = matrix.forward()
    state_mask = w.get("state_mask")
    if "modrelu_bias" in w:
        activation = lambda z: modrelu(z, w["modrelu_bias"])  # noqa: E731

    def body(carry, chunks):
        (h,) = entering = carry
        z = ops.matmul(chunks[0], w["kernel"])
        if "bias" in w:
            z = z + w["bias"]
        states = []
        for j in range(z.shape[0]):
            into = h if state_mask is None else h * state_mask
            new = activation(z[j] + advance(into))
            if "mask" in w:
                new = ops.where(chunks[1][j][:, None] > 0, new, h)
            h = new
            states.append(h)
        return (h,), (ops.stack(states), entering[0][None])

    dtype = w["initial_state"].dtype
    (last,), (states, entering) = chunked_scan(
        body,
        (w["initial_state"],),
        (w["x"], w["mask"]) if "mask" in w else (w["x"],),
        (dtype, dtype),
        _length(w["x"]),
    )
    return last, states, entering


def _backward(w, matrix, pullback, states, entering, upstream, sequences):
    """Cotangents of all tensors, in the order in which they are passed."""
    retreat = matrix.backward()
    state_mask = w.get("state_mask")

    def body(carry, chunks):
        dh, sums = carry
        chunks = dict(zip(inputs, chunks))
        h, deltas = chunks["states"], []
        for j in reversed(range(h.shape[0])):
            if sequences:
                dh = dh + chunks["upstream"][j]
            delta, kept = pullback(dh, h[j]), None
            if "mask" in w:
                on = chunks["mask"][j][:, None] > 0
                delta = ops.where(on, delta, ops.zeros_like(delta))
                kept = ops.where(on, ops.zeros_like(dh), dh)
            deltas.append(delta)
            dh = retreat(delta)
            if state_mask is not None:
                dh = dh * state_mask
            if kept is not None:
                dh = dh + kept
        delta = ops.stack(deltas[::-1])
        sums = _accumulate(sums, matrix, state_mask, chunks, delta)
        return (dh, sums), (ops.matmul(delta, kernel_t),)

    inputs = {"x": w["x"], "states": states, "entering": entering}
    if "mask" in w:
        inputs["mask"] = w["mask"]
    if sequences:
        inputs["upstream"] = upstream
        upstream = ops.zeros_like(w["initial_state"])
    kernel_t = ops.transpose(w["kernel"])
    (dh, sums), (dx,) = chunked_scan(
        body,
        (upstream, _zero_sums(w, matrix)),
        tuple(inputs.values()),
        (upstream.dtype,),
        _length(w["x"]),
        reverse=True,
    )
    cotangents = {**sums, "x": dx.stack(), "initial_state": dh}
    for name in ("mask", "state_mask"):
        if name in w:
            cotangents[name] = ops.zeros_like(w[name])
    return (
        *(cotangents[name] for name in w),
        *matrix.gradients(sums["matrix"]),
    )


def _zero_sums(w, matrix):
    sums = {
        name: ops.zeros(w[name].shape, working_dtype(w[name].dtype))
        for name in ("kernel", "bias", "modrelu_bias")
        if name in w
    }
    return {**sums, "matrix": matrix.zeros()}


def _accumulate(sums, matrix, state_mask, chunks, delta):
    """Adds what a chunk of time gives to each weight."""

    def rows(t):
        return ops.reshape(t, (-1, t.shape[-1]))

    x, h, first = chunks["x"], chunks["states"][:-1], chunks["entering"]
    if state_mask is not None:
        h, first = h * state_mask, first * state_mask
    new = {"kernel": sums["kernel"] + outer(rows(x), rows(delta))}
    if "bias" in sums:
        new["bias"] = sums["bias"] + _column_sums(rows(delta), sums["bias"])
    if "modrelu_bias" in sums:
        # Where h is 0 so is delta, and sign(h) is the sign of its argument.
        signed = rows(delta * ops.sign(chunks["states"]))
        new["modrelu_bias"] = sums["modrelu_bias"] + _column_sums(
            signed, sums["modrelu_bias"]
        )
    new["matrix"] = matrix.accumulate(sums["matrix"], rows(first), delta[0])
    if h.shape[0]:
        new["matrix"] = matrix.accumulate(
            new["matrix"], rows(h), rows(delta[1:])
        )
    return new


def _column_sums(rows, like):
    return ops.sum(ops.cast(rows, like.dtype), axis=0)


def _length(x):
    """The number of steps: an integer, or a tensor where it is unknown."""
    return ops.shape(x)[0]
