"""The mathematics of `tf_spectral` once more, in plain float64 NumPy loops.

Written from the specification alone and from nothing in the package: slow,
literal, without compact forms. Tests compare the package with these.
Conventions: rows of a batch, kernels `(in, out)`, packed reflectors
`(m, n)` with row `i` zero in its first `i` entries.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Householder reflectors


def reflector(u):
    """`H(u) = I - 2 u u^T / ||u||^2`, and `H(0) = I`."""
    u = np.asarray(u, "float64")
    largest = np.max(np.abs(u), initial=0.0)
    if largest == 0.0:
        return np.eye(len(u))
    u = u / largest
    return np.eye(len(u)) - 2.0 * np.outer(u, u) / np.dot(u, u)


def householder_product(vectors):
    """`H(v_0) H(v_1) ... H(v_{m-1})` for the rows of an `(m, n)` array."""
    product = np.eye(np.shape(vectors)[1])
    for u in vectors:
        product = product @ reflector(u)
    return product


def householder_product_gradient(vectors, cotangent):
    """Gradient of `sum(cotangent * householder_product(vectors))`.

    The rows of the identity pass through the reflectors one by one.
    """
    x = np.eye(np.shape(vectors)[1])
    return apply_householder_gradients(x, vectors, cotangent)[1]


def apply_householder(x, vectors):
    """Rows of `x` `(b, n)` through one reflector after the other."""
    y = np.array(x, "float64")
    for u in np.asarray(vectors, "float64"):
        for row in y:
            row -= _tau(u) * np.dot(row, u) * u
    return y


def apply_householder_gradients(x, vectors, cotangent):
    """Gradients of `sum(cotangent * apply_householder(x, vectors))`.

    With `y = x H(u)`, `a = tau <x, u>` and `b = tau <g, u>`:
    `dL/du = -a g - b y` and `dL/dx = g - b u`; zero rows get zero.

    Returns:
        The gradients by `x` `(b, n)` and by `vectors` `(m, n)`.
    """
    vectors = np.asarray(vectors, "float64")
    g = np.array(cotangent, "float64")
    by_vectors = np.zeros(vectors.shape)
    for i in reversed(range(len(vectors))):
        u = vectors[i]
        before = apply_householder(x, vectors[:i])
        after = apply_householder(x, vectors[: i + 1])
        for r in range(len(g)):
            alpha = _tau(u) * np.dot(before[r], u)
            beta = _tau(u) * np.dot(g[r], u)
            by_vectors[i] += -alpha * g[r] - beta * after[r]
            g[r] = g[r] - beta * u
    return g, by_vectors


def _tau(u):
    squared_norm = np.dot(u, u)
    return 0.0 if squared_norm == 0.0 else 2.0 / squared_norm


def pack(vectors):
    """Zero the first `i` entries of row `i`."""
    packed = np.array(vectors, "float64")
    for i in range(packed.shape[0]):
        for j in range(packed.shape[1]):
            if j < i:
                packed[i, j] = 0.0
    return packed


# The spectral kernel


def spectral_kernel(u_vectors, sigma, v_vectors):
    """Keras kernel `K = V Sig^T U^T` of the papers' `W = U Sig V^T`.

    Args:
        u_vectors: `(m_u, n_out)`.
        sigma: `(min(n_in, n_out),)`.
        v_vectors: `(m_v, n_in)`.

    Returns:
        `(n_in, n_out)`.
    """
    u = householder_product(u_vectors)
    v = householder_product(v_vectors)
    kernel = np.zeros((len(v), len(u)))
    for i, singular_value in enumerate(sigma):
        kernel += singular_value * np.outer(v[:, i], u[:, i])
    return kernel


def block_rotation(angles, n):
    """`(n, n)` with `[[cos, -sin], [sin, cos]]` at `(2p, 2p + 1)`.

    In the papers' orientation; a Keras kernel is its transpose.
    """
    w = np.eye(n)
    for p, angle in enumerate(angles):
        a, b = 2 * p, 2 * p + 1
        w[a, a], w[a, b] = np.cos(angle), -np.sin(angle)
        w[b, a], w[b, b] = np.sin(angle), np.cos(angle)
    return w


def rotation_reflectors(angles, phases, rest, n):
    """Packed `u`, `v` with `U V^T = block_rotation(angles, n)`.

    Args:
        angles: One for each plane.
        phases: One for each plane, any numbers.
        rest: `(m - planes, n)`, the rows that both sides share.
        n: Size of the matrix.

    Returns:
        `u_vectors` and `v_vectors`, both `(m, n)`.
    """
    planes = len(angles)
    u = np.zeros((planes + len(rest), n))
    v = np.zeros((planes + len(rest), n))
    for p in range(planes):
        direction = phases[p] + angles[p] / 2.0
        u[p, 2 * p] = np.cos(direction)
        u[p, 2 * p + 1] = np.sin(direction)
        v[p, 2 * p] = np.cos(phases[p])
        v[p, 2 * p + 1] = np.sin(phases[p])
    for i, row in enumerate(rest):
        u[planes + i] = row
        v[planes + i] = row
    return pack(u), pack(v)


def count_packed(m, n):
    """Free entries of `m` packed reflectors of length `n`."""
    return sum(1 for i in range(m) for j in range(n) if j >= i)


def count_spectral_rnn(n_in, n, n_out, m_u, m_v):
    """Input and output kernels, state bias, sigma and both reflectors."""
    return (
        n_in * n
        + n * n_out
        + n
        + n
        + count_packed(m_u, n)
        + count_packed(m_v, n)
    )


# Activations


class Activation(NamedTuple):
    """A function of `z` with its derivative.

    `parameter_derivative` is by the activation's own vector, one entry for
    each unit, where it has one.
    """

    value: Callable
    derivative: Callable
    parameter_derivative: Callable | None = None


def _sigmoid(z):
    return 0.5 * (1.0 + np.tanh(0.5 * z))


linear = Activation(lambda z: 1.0 * z, lambda z: np.ones_like(z))
tanh = Activation(np.tanh, lambda z: 1.0 - np.tanh(z) ** 2)
sigmoid = Activation(_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z))
relu = Activation(
    lambda z: np.where(z > 0.0, z, 0.0), lambda z: np.where(z > 0.0, 1.0, 0.0)
)


def leaky_relu(slope):
    return Activation(
        lambda z: np.where(z > 0.0, z, slope * z),
        lambda z: np.where(z > 0.0, 1.0, slope),
    )


def modrelu(b):
    """`sign(z) max(|z| + b, 0)`, with `sign(0) = 0`."""

    def alive(z):
        return np.where((np.abs(z) + b > 0.0) & (z != 0.0), 1.0, 0.0)

    return Activation(
        lambda z: np.sign(z) * np.maximum(np.abs(z) + b, 0.0),
        alive,
        lambda z: np.sign(z) * alive(z),
    )


# Recurrent layers


def simple_rnn(
    x,
    kernel,
    bias,
    recurrent_kernel,
    activation,
    h0=None,
    mask=None,
    go_backwards=False,
    zero_output_for_mask=False,
    hold_initial_state=False,
):
    """`keras.layers.SimpleRNN`: `h_t = f(x_t K + b + h_{t-1} R)`.

    A masked step keeps the state and repeats the last output. Before the
    first unmasked step that output is zero (Keras on TensorFlow), or the
    initial state under `hold_initial_state` (Keras on JAX).

    Args:
        x: `(batch, time, n_in)`.
        kernel: `(n_in, units)`.
        bias: `(units,)`.
        recurrent_kernel: `(units, units)`.
        activation: An `Activation`.
        h0: `(batch, units)`, zero by default.
        mask: `(batch, time)` of booleans, `True` where a step counts.
        go_backwards: Whether time runs backwards, outputs in that order.
        zero_output_for_mask: Whether masked steps output zeros.

    Returns:
        Outputs `(batch, time, units)` and last state `(batch, units)`.
    """
    x, h0, mask = _sequence(x, h0, mask, len(bias), go_backwards)
    batch, time, _ = x.shape
    outputs = np.zeros((batch, time, len(bias)))
    states = np.zeros((batch, len(bias)))
    for r in range(batch):
        h = h0[r]
        held = h0[r] if hold_initial_state else np.zeros(len(bias))
        for t in range(time):
            if mask[r, t]:
                z = x[r, t] @ kernel + bias + h @ recurrent_kernel
                h = activation.value(z)
                held = h
                outputs[r, t] = h
            elif not zero_output_for_mask:
                outputs[r, t] = held
        states[r] = h
    return outputs, states


def bptt(
    cotangents,
    x,
    kernel,
    bias,
    recurrent_kernel,
    activation,
    h0=None,
    mask=None,
    go_backwards=False,
    zero_output_for_mask=False,
    hold_initial_state=False,
    state_cotangents=None,
):
    """Gradients of `sum(outputs * cotangents)` of `simple_rnn`.

    Args:
        cotangents: `(batch, time, units)`, in the order of the outputs.
        state_cotangents: `(batch, units)`; adds
            `sum(last_state * state_cotangents)` to the function.

    Returns:
        Dict of gradients by `"x"`, `"kernel"`, `"bias"`,
        `"recurrent_kernel"`, `"h0"`, and by `"activation"` for the own
        vector of the activation where it has one.
    """
    x, h0, mask = _sequence(x, h0, mask, len(bias), go_backwards)
    batch, time, _ = x.shape
    if state_cotangents is None:
        state_cotangents = np.zeros(h0.shape)
    gradients = {
        "x": np.zeros(x.shape),
        "kernel": np.zeros(np.shape(kernel)),
        "bias": np.zeros(len(bias)),
        "recurrent_kernel": np.zeros(np.shape(recurrent_kernel)),
        "h0": np.zeros(h0.shape),
        "activation": np.zeros(len(bias)),
    }
    for r in range(batch):
        h, before, z = h0[r], {}, {}
        for t in range(time):
            if mask[r, t]:
                before[t] = h
                z[t] = x[r, t] @ kernel + bias + h @ recurrent_kernel
                h = activation.value(z[t])
        dh = np.array(state_cotangents[r], "float64")
        for t in reversed(range(time)):
            if not mask[r, t]:
                # The repeated output is an earlier state, if there is one.
                started = hold_initial_state or mask[r, :t].any()
                if started and not zero_output_for_mask:
                    dh = dh + cotangents[r, t]
                continue
            dh = dh + cotangents[r, t]
            dz = dh * activation.derivative(z[t])
            if activation.parameter_derivative is not None:
                gradients["activation"] += dh * activation.parameter_derivative(
                    z[t]
                )
            gradients["x"][r, t] = kernel @ dz
            gradients["kernel"] += np.outer(x[r, t], dz)
            gradients["bias"] += dz
            gradients["recurrent_kernel"] += np.outer(before[t], dz)
            dh = recurrent_kernel @ dz
        gradients["h0"][r] = dh
    if go_backwards:
        gradients["x"] = gradients["x"][:, ::-1]
    if activation.parameter_derivative is None:
        del gradients["activation"]
    return gradients


def _sequence(x, h0, mask, units, go_backwards):
    """Inputs in the order of the loop, with the defaults filled in."""
    x = np.asarray(x, "float64")
    batch, time, _ = x.shape
    h0 = np.zeros((batch, units)) if h0 is None else np.asarray(h0, "float64")
    mask = np.ones((batch, time), bool) if mask is None else np.asarray(mask)
    if go_backwards:
        x, mask = x[:, ::-1], mask[:, ::-1]
    return x, h0, mask


# Derivatives


def finite_difference(f, x, eps=1e-5):
    """Central differences of a scalar function of one array."""
    x = np.array(x, "float64")
    gradient = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        forward, backward = x.copy(), x.copy()
        forward[index] += eps
        backward[index] -= eps
        gradient[index] = (f(forward) - f(backward)) / (2.0 * eps)
    return gradient
