"""Bounds of activations and of their first two derivatives."""

import math
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
