"""Activations: bounds of their derivatives, and the derivatives."""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras import activations
from keras import ops


class Activation(NamedTuple):
    """What the bounds need to know of an activation `f`.

    Attributes:
        supremum: Bound of `|f|`, or `None` if there is none.
        slope: Bound of `|f'|`, or of the induced norm of `f'` if `f` mixes
            the units.
        curvature: Bound of `|f''|`.
        at_zero: `|f(0)|`.
        growth: Number `g` with `|f(x)| <= |f(0)| + g |x|`.
        doubt: `None`, or why these numbers are no bounds.
    """

    supremum: float | None
    slope: float
    curvature: float
    at_zero: float = 0.0
    growth: float = 1.0
    doubt: str | None = None


_KINK = "no bounded second derivative"

# Suprema rounded up; those of the unbounded ones were found on a grid.
_BOUNDS = {
    "linear": Activation(None, 1.0, 0.0),
    "sigmoid": Activation(1.0, 1 / 4, 1 / (6 * math.sqrt(3)), 1 / 2),
    "tanh": Activation(1.0, 1.0, 4 / (3 * math.sqrt(3))),
    "softsign": Activation(1.0, 1.0, 2.0),
    "arctan": Activation(math.pi / 2, 1.0, 9 / (8 * math.sqrt(3))),
    "erf": Activation(
        1.0,
        2 / math.sqrt(math.pi),
        2 * math.sqrt(2 / (math.pi * math.e)),
        growth=2 / math.sqrt(math.pi),
    ),
    "sin": Activation(1.0, 1.0, 1.0),
    "softplus": Activation(None, 1.0, 1 / 4, math.log(2)),
    "log_sigmoid": Activation(None, 1.0, 1 / 4, math.log(2)),
    "gelu": Activation(None, 1.1290, 0.7979),
    "silu": Activation(None, 1.0999, 1 / 2),
    "mish": Activation(None, 1.0885, 0.6443),
    "elu": Activation(None, 1.0, 1.0),
    "celu": Activation(None, 1.0, 1.0),
    "squareplus": Activation(None, 1.0, 1 / 4, 1.0),
    "tanh_shrink": Activation(None, 1.0, 4 / (3 * math.sqrt(3))),
    "relu": Activation(None, 1.0, 0.0, doubt=_KINK),
    "relu6": Activation(6.0, 1.0, 0.0, doubt=_KINK),
    "leaky_relu": Activation(None, 1.0, 0.0, doubt=_KINK),
    "selu": Activation(None, 1.76, 0.0, growth=1.76, doubt=_KINK),
    "hard_sigmoid": Activation(1.0, 1 / 6, 0.0, 1 / 2, doubt=_KINK),
    "hard_tanh": Activation(1.0, 1.0, 0.0, doubt=_KINK),
    "hard_silu": Activation(None, 1.5, 0.0, doubt=_KINK),
}
_BOUNDS["swish"] = _BOUNDS["silu"]


def activation_name(activation):
    """The name of a stock activation, or `None` of another callable."""
    if activation is None:
        return "linear"
    name = getattr(activation, "__name__", "")
    for module in (activations, ops):
        if getattr(module, name, None) is activation:
            return name
    return None


def activation_bounds(name, q):
    """The `Activation` of a name, under the q-norm.

    Args:
        name: String, the name of a function of `keras.activations` or
            `keras.ops`, or `None` for an unknown activation.
        q: 1, 2 or `"inf"`. Only softmax depends on it.

    Returns:
        `Activation`, with a `doubt` where there is no theory.

    Example:

    >>> from tf_spectral.bounds.activations import activation_bounds
    >>> activation_bounds("sigmoid", 2).slope
    0.25

    Reference: Flynn, "The duality structure gradient descent algorithm",
    assumption 4.1; softmax by `|cov(u, v)| <= range(u) range(v) / 4`.
    """
    if name == "softmax":
        # The range of u is at most 2^(1-1/q) |u|_q, and
        # |s''[u, v]|_1 <= 2 std(u) std(v).
        curvature = {1: 1 / 2, 2: 1.0, "inf": 2.0}[q]
        return Activation(1.0, 1 / 2, curvature, 1.0)
    unknown = Activation(None, 1.0, 0.0, doubt="unknown activation")
    return _BOUNDS.get(name, unknown)


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

    >>> from tf_spectral.bounds.activations import smooth_activation
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
