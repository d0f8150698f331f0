"""A recurrent layer's pass through time, with a backward pass of its own.

    h_t = f(x_t K + b + h_{t-1} R),        t = 1 ... T

Forward keeps the states h_t and nothing else. Backward carries only
`delta_t`, the cotangent of the argument of f, from step to step; what the
weights get is summed chunk by chunk, in products of large matrices over rows
that are still in the cache.

The transition R has two forms, `Dense` and `DiagonalPlusLowRank`. Both act on
rows, `h -> h R`, and know the cotangents of their tensors from rows `h` that
went in and cotangents `delta` of what came out.
"""

import functools
from typing import Any
from typing import NamedTuple

from keras import ops

from tf_spectral.activations import modrelu
from tf_spectral.backend.loops import chunked_scan
from tf_spectral.backend.precision import working_dtype
from tf_spectral.backend.tensors import is_differentiated_again


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
    training=True,
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
        training: Boolean. If false the backward pass reads stacked states and
            not the loop's own lists, which TensorFlow cannot save with the
            gradient of a SavedModel. Defaults to `True`.

    Returns:
        Tensor `(T, batch, n)` of all states, or `(batch, n)` of the last.
    """
    if bias is not None:
        # A feature that is always 1: no pass over the states to add b, and
        # none to sum its gradient.
        x = ops.concatenate([x, ops.ones_like(x[..., :1])], axis=-1)
        kernel = ops.concatenate([kernel, bias[None]], axis=0)
    tensors = {
        "x": x,
        "kernel": kernel,
        "initial_state": initial_state,
        "modrelu_bias": modrelu_bias,
        "state_mask": state_mask,
        "mask": None if mask is None else ops.cast(mask, x.dtype),
    }
    tensors = {k: v for k, v in tensors.items() if v is not None}

    @ops.custom_gradient
    def run(*values):
        w = dict(zip(tensors, values))
        matrix = type(transition)(*values[len(w) :])
        last, tapes = _forward(w, matrix, activation)
        if return_sequences or not training:
            # The stacked states serve both uses: keep no second copy.
            tapes["states"] = tapes["states"].stack()
        if not training:
            before = [w["initial_state"][None], tapes["states"][:-1]]
            tapes["entering"] = ops.concatenate(before, axis=0)
        output = tapes["states"] if return_sequences else last

        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            kept = tapes
            if is_differentiated_again():
                # The tapes were written where PyTorch records nothing.
                _, kept = _forward(w, matrix, activation)
            cotangents = _backward(
                w, matrix, pullback, kept, upstream, return_sequences
            )
            return tuple(
                ops.cast(c, v.dtype) for c, v in zip(cotangents, values)
            )

        return output, grad

    return run(*tensors.values(), *transition)


def _forward(w, matrix, activation):
    """The last state, and the tapes of all states and of chunks' first."""
    argument = _argument(w, matrix)
    if "modrelu_bias" in w:
        activation = functools.partial(modrelu, bias=w["modrelu_bias"])

    def body(h, chunks):
        z = argument(chunks["x"])
        states, entering = [], h
        for j in range(len(chunks["x"])):
            into = h * w["state_mask"] if "state_mask" in w else h
            # Keras' own tanh returns float32 for float64 on JAX.
            new = ops.cast(activation(z(into, j)), h.dtype)
            if "mask" in w:
                new = ops.where(chunks["mask"][j][:, None] > 0, new, h)
            h = new
            states.append(h)
        return h, {"states": states, "entering": entering[None]}

    dtype = w["initial_state"].dtype
    return chunked_scan(
        body,
        w["initial_state"],
        {name: w[name] for name in ("x", "mask") if name in w},
        {"states": ("step", dtype), "entering": ("chunk", dtype)},
        ops.shape(w["x"])[0],
    )


def _argument(w, matrix):
    """Function of the steps of x: gives `(h, j) -> x_j K + h R`."""
    kernel = w["kernel"]

    def by_chunk(steps):
        z = ops.reshape(steps.rows() @ kernel, (len(steps), -1, units))
        return lambda h, j: z[j] + advance(h)

    def by_step(steps):
        return lambda h, j: advance_with(h, steps[j])

    features, units = kernel.shape
    # A handful of features makes a product too thin to gain by its length.
    if features < 8:
        advance_with = matrix.forward_with(kernel)
        return by_step
    advance = matrix.forward()
    return by_chunk


def _backward(w, matrix, pullback, tapes, upstream, sequences):
    """Cotangents of all tensors, in the order in which they are passed."""
    retreat = matrix.backward()
    kernel_t = ops.transpose(w["kernel"])
    inputs = {"x": w["x"], **tapes}
    if "mask" in w:
        inputs["mask"] = w["mask"]
    dh = upstream
    if sequences:
        inputs["upstream"] = upstream
        dh = ops.zeros_like(w["initial_state"])

    def body(carry, chunks):
        dh, sums = carry
        deltas = [None] * len(chunks["x"])
        for j in reversed(range(len(deltas))):
            if sequences:
                dh = dh + chunks["upstream"][j]
            delta = pullback(dh, chunks["states"][j])
            kept = None
            if "mask" in w:
                on = chunks["mask"][j][:, None] > 0
                kept = ops.where(on, ops.zeros_like(dh), dh)
                delta = ops.where(on, delta, ops.zeros_like(delta))
            deltas[j] = delta
            dh = retreat(delta)
            if "state_mask" in w:
                dh = dh * w["state_mask"]
            dh = dh if kept is None else dh + kept
        rows = ops.concatenate(deltas, axis=0)
        sums = _accumulate(sums, w, matrix, chunks, rows)
        dx = rows @ kernel_t
        dx = ops.reshape(dx, (len(deltas), -1, dx.shape[-1]))
        return (dh, sums), {"x": dx}

    (dh, sums), dx = chunked_scan(
        body,
        (dh, _zero_sums(w, matrix)),
        inputs,
        {"x": ("chunk", w["x"].dtype)},
        ops.shape(w["x"])[0],
        reverse=True,
    )
    cotangents = {**sums, "x": dx["x"].stack(), "initial_state": dh}
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
        for name in ("kernel", "modrelu_bias")
        if name in w
    }
    return {**sums, "matrix": matrix.zeros()}


def _accumulate(sums, w, matrix, chunks, delta):
    """Adds what a chunk of time gives to each weight."""
    states = [chunks["states"][j] for j in range(len(chunks["states"]))]
    before = [chunks["entering"][0], *states[:-1]]
    if "state_mask" in w:
        before = [h * w["state_mask"] for h in before]
    before = ops.concatenate(before, axis=0)
    new = {
        "kernel": sums["kernel"] + outer(chunks["x"].rows(), delta),
        "matrix": matrix.accumulate(sums["matrix"], before, delta),
    }
    if "modrelu_bias" in w:
        # Where h is 0 so is delta, and sign(h) is the sign of its argument.
        signs = ops.sign(ops.concatenate(states, axis=0))
        new["modrelu_bias"] = sums["modrelu_bias"] + _column_sums(delta * signs)
    return new


def _column_sums(rows):
    return ops.sum(ops.cast(rows, working_dtype(rows.dtype)), axis=0)


class Dense(NamedTuple):
    """The transition `h -> h kernel`, `kernel` of shape `(n, n)`."""

    kernel: Any

    def forward(self):
        kernel = self.kernel
        return lambda h: h @ kernel

    def forward_with(self, kernel):
        """The function `(h, x) -> x kernel + h R`."""
        advance = self.forward()
        return lambda h, x: x @ kernel + advance(h)

    def backward(self):
        kernel_t = ops.transpose(self.kernel)
        return lambda d: d @ kernel_t

    def zeros(self):
        return (_zeros_like(self.kernel),)

    def accumulate(self, sums, h, delta):
        return (sums[0] + outer(h, delta),)

    def gradients(self, sums):
        return sums


class DiagonalPlusLowRank(NamedTuple):
    """The transition `h -> h (diag(sigma) - p q^T)`.

    `sigma` has shape `(n,)`, `p` and `q` have shape `(n, rank)`.
    """

    sigma: Any
    p: Any
    q: Any

    def forward(self):
        return self._times(self.p, ops.transpose(self.q))

    def forward_with(self, kernel):
        """The function `(h, x) -> x kernel + h R`."""
        sigma, p = self.sigma, self.p
        # One product for both terms: the fewer passes over rows, the better.
        out_of = ops.concatenate([-ops.transpose(self.q), kernel], axis=0)

        def advance(h, x):
            return h * sigma + ops.concatenate([h @ p, x], axis=1) @ out_of

        return advance

    def backward(self):
        return self._times(self.q, ops.transpose(self.p))

    def _times(self, into, out_of):
        sigma = self.sigma
        return lambda h: h * sigma - (h @ into) @ out_of

    @property
    def _thin(self):
        # One square product of all rows against three thin ones.
        units, rank = self.p.shape
        return units > 3 * rank

    def zeros(self):
        if self._thin:
            return tuple(_zeros_like(t) for t in self)
        units = self.p.shape[0]
        return (_zeros_like(self.p, (units, units)),)

    def accumulate(self, sums, h, delta):
        if not self._thin:
            return (sums[0] + outer(h, delta),)
        sigma, p, q = sums
        return (
            sigma + ops.cast(ops.sum(h * delta, axis=0), sigma.dtype),
            p - outer(h, delta @ self.q),
            q - outer(delta, h @ self.p),
        )

    def gradients(self, sums):
        if self._thin:
            return sums
        (total,) = sums
        p, q = (ops.cast(t, total.dtype) for t in (self.p, self.q))
        return (
            ops.diagonal(total),
            -(total @ q),
            -(ops.transpose(total) @ p),
        )


def low_rank_pays(units, rank, rows=None):
    """Whether `diag(sigma) - P Q^T` costs less than forming the matrix.

    Args:
        units: Integer `n`, the size of the matrix.
        rank: Integer, the number of reflectors on both sides together.
        rows: Integer, how many rows will be multiplied (batch times time), or
            `None` for many.

    Returns:
        Boolean: `n (1 / rank + 1 / rows) >= 2`.
    """
    return units * (1 / max(rank, 1) + (1 / rows if rows else 0)) >= 2


def _zeros_like(tensor, shape=None):
    return ops.zeros(shape or tensor.shape, working_dtype(tensor.dtype))


def outer(a, b):
    """Sum over all rows of `a_i^T b_i`, in float32 or better."""
    product = ops.transpose(a) @ b
    return ops.cast(product, working_dtype(product.dtype))
