"""One table of activations: what bounds, gains and recurrences need of each.

Bounds of an activation and of its derivatives, the derivatives themselves,
the gain that makes up for what it takes away of a signal, and the way back
through it from its outputs alone. Beside it `ModReLU`, which Keras has not.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from keras import activations
from keras import constraints
from keras import initializers
from keras import layers
from keras import ops
from keras import regularizers
from keras.saving import deserialize_keras_object
from keras.saving import register_keras_serializable
from keras.saving import serialize_keras_object

from tf_spectral import checks
from tf_spectral.backend.gradients import fused_pullback


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


class _Row(NamedTuple):
    """What the table has of an activation `f`.

    Attributes:
        bounds: `Activation`.
        mean_square: `E f(z)^2` for standard normal `z`, or `None`.
        pullback: Function `(cotangent of f(z), f(z)) -> cotangent of z`, or
            `None` where `f'` is no known function of `f`.
        derivatives: `f`, `f'` and `f''`, the latter two as functions of
            `(z, f(z))`; `None` where they are not continuous.
    """

    bounds: Activation
    mean_square: float | None = None
    pullback: Callable | None = None
    derivatives: tuple | None = None


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


def _leaky_pullback(slope):
    fused = fused_pullback("leaky_relu", slope)
    return fused or (lambda g, h: ops.where(h > 0, g, slope * g))


_KINK = "no bounded second derivative"

# Suprema are rounded up; those of the unbounded ones were found on a grid.
# Mean squares without a closed form are integrals (a test repeats them).
# None of the derivatives divides by what vanishes where a unit saturates.
_TABLE = {
    "linear": _Row(
        Activation(None, 1.0, 0.0),
        1.0,
        lambda g, h: g,
        (
            lambda z: z,
            lambda z, s: ops.ones_like(z),
            lambda z, s: ops.zeros_like(z),
        ),
    ),
    "sigmoid": _Row(
        Activation(1.0, 1 / 4, 1 / (6 * math.sqrt(3)), 1 / 2),
        0.2933790358,
        fused_pullback("sigmoid") or (lambda g, h: g * (h * (1 - h))),
        (
            ops.sigmoid,
            lambda z, s: s * (1 - s),
            lambda z, s: s * (1 - s) * (1 - 2 * s),
        ),
    ),
    "tanh": _Row(
        Activation(1.0, 1.0, 4 / (3 * math.sqrt(3))),
        0.3942944904,
        fused_pullback("tanh") or (lambda g, h: g * (1 - h * h)),
        (
            _tanh,
            lambda z, s: 1 - s * s,
            lambda z, s: -2 * s * (1 - s * s),
        ),
    ),
    "softsign": _Row(
        Activation(1.0, 1.0, 2.0),
        0.1830140213,
        lambda g, h: g * ops.square(1 - ops.abs(h)),
    ),
    "arctan": _Row(Activation(math.pi / 2, 1.0, 9 / (8 * math.sqrt(3)))),
    "erf": _Row(
        Activation(
            1.0,
            2 / math.sqrt(math.pi),
            2 * math.sqrt(2 / (math.pi * math.e)),
            growth=2 / math.sqrt(math.pi),
        ),
        derivatives=(
            ops.erf,
            lambda z, s: 2 / math.sqrt(math.pi) * ops.exp(-z * z),
            lambda z, s: -4 / math.sqrt(math.pi) * z * ops.exp(-z * z),
        ),
    ),
    "sin": _Row(Activation(1.0, 1.0, 1.0)),
    "softplus": _Row(
        Activation(None, 1.0, 1 / 4, math.log(2)),
        0.9212459088,
        derivatives=(
            ops.softplus,
            lambda z, s: ops.sigmoid(z),
            lambda z, s: ops.sigmoid(z) * ops.sigmoid(-z),
        ),
    ),
    "log_sigmoid": _Row(Activation(None, 1.0, 1 / 4, math.log(2))),
    "gelu": _Row(
        Activation(None, 1.1290, 0.7979),
        0.4252214826,
        derivatives=(
            lambda z: z * _normal_distribution(z),
            lambda z, s: _normal_distribution(z) + z * _normal_density(z),
            lambda z, s: (2 - z * z) * _normal_density(z),
        ),
    ),
    "silu": _Row(
        Activation(None, 1.0999, 1 / 2),
        0.3557755198,
        derivatives=(
            ops.silu,
            lambda z, s: ops.sigmoid(z) + s * ops.sigmoid(-z),
            lambda z, s: _silu_curvature(z),
        ),
    ),
    "mish": _Row(Activation(None, 1.0885, 0.6443), 0.4523421924),
    "elu": _Row(
        Activation(None, 1.0, 1.0),
        0.6449454175,
        fused_pullback("elu")
        or (lambda g, h: ops.where(h > 0, g, g * (h + 1))),
    ),
    "celu": _Row(Activation(None, 1.0, 1.0)),
    "squareplus": _Row(Activation(None, 1.0, 1 / 4, 1.0)),
    "tanh_shrink": _Row(Activation(None, 1.0, 4 / (3 * math.sqrt(3)))),
    "relu": _Row(
        Activation(None, 1.0, 0.0, doubt=_KINK),
        1 / 2,
        fused_pullback("relu")
        or (lambda g, h: ops.where(h > 0, g, ops.zeros_like(g))),
    ),
    "relu6": _Row(Activation(6.0, 1.0, 0.0, doubt=_KINK)),
    "leaky_relu": _Row(
        Activation(None, 1.0, 0.0, doubt=_KINK),
        (1 + 0.2**2) / 2,
        _leaky_pullback(0.2),
    ),
    "selu": _Row(
        Activation(None, 1.76, 0.0, growth=1.76, doubt=_KINK),
        # By the choice of its two constants.
        1.0,
    ),
    "hard_sigmoid": _Row(Activation(1.0, 1 / 6, 0.0, 1 / 2, doubt=_KINK)),
    "hard_tanh": _Row(Activation(1.0, 1.0, 0.0, doubt=_KINK)),
    "hard_silu": _Row(Activation(None, 1.5, 0.0, doubt=_KINK)),
}
# Those with two continuous derivatives.
SMOOTH = tuple(name for name, row in _TABLE.items() if row.derivatives)
_TABLE["swish"] = _TABLE["silu"]


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

    >>> from tf_spectral.activations import activation_bounds
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
    return _TABLE[name].bounds if name in _TABLE else unknown


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

    >>> from tf_spectral.activations import smooth_activation
    >>> smooth_activation("sigmoid").bounds.slope
    0.25
    """
    name = activation
    if not isinstance(activation, str):
        name = activation_name(activation)
    name = "silu" if name == "swish" else name
    # `ops.gelu` is another function than the activation of that name.
    if name not in SMOOTH or activation is ops.gelu:
        raise ValueError(
            "Argument `activation` must have two continuous derivatives. "
            f"Expected one of {SMOOTH}, Received: activation={activation!r}"
        )
    return SmoothActivation(
        *_TABLE[name].derivatives, activation_bounds(name, 2)
    )


def activation_gain(activation):
    """The singular value that keeps a signal's mean square through `f`.

    `sqrt(2 / (1 + a^2))` for a leaky ReLU of slope `a`, `sqrt(2)` for a ReLU,
    1 for the identity and for modReLU (exact at bias 0), 1.5925 for tanh
    (PyTorch's customary 5/3 is a little more).

    It is right where inputs of the activation have no preferred sign, as
    behind the kernels of `"haar"` with all reflectors. With few reflectors,
    or `"gaussian"` ones, a kernel starts closer to the identity and hands a
    ReLU what another one let pass: in many layers of 128 units with 16
    reflectors 1.05 to 1.08 keeps the signal, not 1.41. Give that number then.

    For activations other than (leaky) ReLUs the mean square of a gradient
    does not keep its size with that of the signal: for tanh it grows by `E
    f'(z)^2 / E f(z)^2 = 1.18` a layer, and 1 is the better choice for dozens
    of layers.

    Args:
        activation: Keras activation: a function, a `keras.layers.LeakyReLU`
            or a `ModReLU`.

    Returns:
        Float.

    Raises:
        ValueError: If the gain of the activation is not known.

    Example:

    >>> import keras
    >>> from tf_spectral.activations import activation_gain
    >>> round(activation_gain(keras.activations.relu), 4)
    1.4142

    Reference: He et al., "Delving deep into rectifiers", 2015, equations 10
    and 15.
    """
    if isinstance(activation, ModReLU):
        return 1.0
    slope, row = _leaky_slope(activation), _row_of(activation)
    if slope is not None:
        return math.sqrt(2 / (1 + slope**2))
    if row is None or row.mean_square is None:
        known = sorted(k for k, v in _TABLE.items() if v.mean_square)
        raise ValueError(
            "The gain of the activation is not known. Expected a number as "
            f"`sigma_center`, or one of the activations {known}, LeakyReLU "
            'or "modrelu", Received: sigma_center="auto", '
            f"activation={activation}"
        )
    return 1 / math.sqrt(row.mean_square)


def pullback_from_output(activation):
    """Function `(cotangent of f(z), f(z)) -> cotangent of z`, or `None`.

    A recurrence that keeps only its states can go back through time with it.

    Args:
        activation: A Keras activation: a function, a `ModReLU` or a
            `keras.layers.LeakyReLU`.

    Returns:
        A function of two tensors, or `None` where the derivative is no known
        function of the output.
    """
    if type(activation) is ModReLU:
        return lambda g, h: ops.where(h != 0, g, ops.zeros_like(g))
    slope = _leaky_slope(activation)
    if slope is not None:
        # A negative slope loses the sign of z.
        return _leaky_pullback(slope) if slope >= 0 else None
    row = _row_of(activation)
    return row.pullback if row else None


def _row_of(activation):
    """The row of a function of `keras.activations`, or `None`."""
    name = getattr(activation, "__name__", None)
    if name is None or getattr(activations, name, None) is not activation:
        return None
    return _TABLE.get(name)


def _leaky_slope(activation):
    """The slope of a leaky ReLU at negative numbers, `None` of another."""
    if type(activation) is layers.LeakyReLU:
        return activation.negative_slope
    if isinstance(activation, functools.partial):
        if activation.func is activations.leaky_relu and not activation.args:
            return activation.keywords.get("negative_slope", 0.2)
    return None


def modrelu(z, bias):
    """`sign(z) max(|z| + bias, 0)`, with `sign(0) = 0`.

    Args:
        z: Floating tensor `(..., n)`.
        bias: Floating tensor `(n,)`.

    Returns:
        Tensor of the shape of `z`.

    Reference: Arjovsky et al., "Unitary evolution recurrent neural
    networks", 2016, equation 8, for real numbers as in Helfrich et al., 2018.
    """
    return ops.sign(z) * ops.relu(ops.abs(z) + bias)


@register_keras_serializable("tf_spectral")
class ModReLU(layers.Layer):
    """`sign(z) max(|z| + b, 0)` with one trainable bias for each unit.

    The activation of orthogonal RNNs: with `b <= 0` its Lipschitz constant is
    1 and large inputs pass with a derivative of exactly 1.

    Args:
        bias_initializer: Keras initializer of `b`. Defaults to uniform in
            [-0.01, 0.01].
        bias_regularizer: Keras regularizer of `b`. Defaults to `None`.
        bias_constraint: Keras constraint of `b`. Defaults to `None`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.layers import ModReLU
    >>> layer = ModReLU(bias_initializer=keras.initializers.Constant(-1.0))
    >>> y = layer(np.array([[-3.0, 0.5, 2.0]]))
    >>> keras.ops.convert_to_numpy(y).tolist()
    [[-2.0, 0.0, 1.0]]

    Reference: Arjovsky et al., 2016, equation 8.
    """

    def __init__(
        self,
        bias_initializer=None,
        bias_regularizer=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**checks.layer_options(kwargs))
        if bias_initializer is None:
            bias_initializer = initializers.RandomUniform(-0.01, 0.01)
        self.bias_initializer = checks.initializer(
            "bias_initializer", bias_initializer
        )
        self.bias_regularizer = checks.regularizer(
            "bias_regularizer", bias_regularizer
        )
        self.bias_constraint = checks.constraint(
            "bias_constraint", bias_constraint
        )
        self.supports_masking = True

    def build(self, input_shape):
        self.bias = self.add_weight(
            name="bias",
            shape=(input_shape[-1],),
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )

    def call(self, inputs):
        return modrelu(inputs, self.bias)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }


def get_activation(identifier, dtype_policy=None):
    """A Keras activation, or a `ModReLU` for `"modrelu"`."""
    if isinstance(identifier, str) and identifier == "modrelu":
        return ModReLU(dtype=dtype_policy)
    if isinstance(identifier, dict):
        # Keras' own `get` knows no layers.
        return checks.found(
            "activation", identifier, deserialize_keras_object, "an activation"
        )
    return checks.activation("activation", identifier)


def serialize_activation(activation):
    """What `get_activation` makes the same activation of."""
    if isinstance(activation, layers.Layer):
        return serialize_keras_object(activation)
    return activations.serialize(activation or activations.linear)


@contextlib.contextmanager
def plain_activation(layer):
    """Within it an activation that was set to `None` is the identity.

    Keras' layers take `None` for that in their calls, but make no
    configuration of it.
    """
    if layer.activation is not None:
        yield
        return
    # PyTorch puts no function where a module was.
    del layer.activation
    layer.activation = activations.linear
    try:
        yield
    finally:
        layer.activation = None
