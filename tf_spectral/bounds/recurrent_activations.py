"""Smooth activations with their first two derivatives."""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from tf_spectral.bounds.activations import Activation
from tf_spectral.bounds.activations import activation_bounds
from tf_spectral.bounds.activations import activation_name


class SmoothActivation(NamedTuple):
    """An activation `f` with two continuous derivatives.

    Attributes:
        function: `f`, a function of a tensor.
        slope: Function `(z, f(z)) -> f'(z)`.
        curvature: Function `(z, f(z)) -> f''(z)`.
        bounds: `Activation`, the suprema of all three.
    """

    function: Callable
    slope: Callable
    curvature: Callable
    bounds: Activation


# f, f', f''. None divides by what vanishes where a unit saturates.
_DERIVATIVES = {
    "tanh": (
        lambda z: _tanh(z),
        lambda z, s: 1 - s * s,
        lambda z, s: -2 * s * (1 - s * s),
    ),
    "sigmoid": (
        ops.sigmoid,
        lambda z, s: s * (1 - s),
        lambda z, s: s * (1 - s) * (1 - 2 * s),
    ),
    "erf": (
        ops.erf,
        lambda z, s: 2 / math.sqrt(math.pi) * ops.exp(-z * z),
        lambda z, s: -4 / math.sqrt(math.pi) * z * ops.exp(-z * z),
    ),
    "linear": (
        lambda z: z,
        lambda z, s: ops.ones_like(z),
        lambda z, s: ops.zeros_like(z),
    ),
    "softplus": (
        ops.softplus,
        lambda z, s: ops.sigmoid(z),
        lambda z, s: ops.sigmoid(z) * ops.sigmoid(-z),
    ),
    "silu": (
        ops.silu,
        lambda z, s: ops.sigmoid(z) + s * ops.sigmoid(-z),
        lambda z, s: _silu_curvature(z),
    ),
    "gelu": (
        lambda z: z * _normal_distribution(z),
        lambda z, s: _normal_distribution(z) + z * _normal_density(z),
        lambda z, s: (2 - z * z) * _normal_density(z),
    ),
}
SMOOTH = tuple(_DERIVATIVES)


def smooth_activation(activation):
    """The `SmoothActivation` of a name or a Keras activation.

    Args:
        activation: One of `SMOOTH`, or the function of `keras.activations` or
            `keras.ops` of that name.

    Returns:
        `SmoothActivation`.

    Raises:
        ValueError: If it is none of them.

    Example:

    >>> from tf_spectral.bounds.recurrent_activations import smooth_activation
    >>> smooth_activation("sigmoid").bounds.slope
    0.25
    """
    name = activation
    if not isinstance(activation, str):
        name = activation_name(activation)
    name = "silu" if name == "swish" else name
    # `ops.gelu` is another function than the activation of that name.
    if name not in _DERIVATIVES or activation is ops.gelu:
        raise ValueError(
            "Argument `activation` must have two continuous derivatives. "
            f"Expected one of {SMOOTH}, Received: activation={activation!r}"
        )
    return SmoothActivation(*_DERIVATIVES[name], activation_bounds(name, 2))


def _tanh(z):
    s = ops.tanh(z)
    if s.dtype == z.dtype:
        return s
    # Keras' own tanh returns float32 for float64 on JAX.
    small = ops.exp(-2 * ops.abs(z))
    s = (1 - small) / (1 + small)
    return ops.where(z < 0, -s, s)


def _silu_curvature(z):
    on, off = ops.sigmoid(z), ops.sigmoid(-z)
    return on * off * (2 + z * (off - on))


def _normal_distribution(z):
    return (1 + ops.erf(z / math.sqrt(2))) / 2


def _normal_density(z):
    return ops.exp(-z * z / 2) / math.sqrt(2 * math.pi)
