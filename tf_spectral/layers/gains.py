"""Gains: the singular value that makes up for what an activation takes away.

If `z` is standard normal and `f` the activation, `f(z)` has the mean square
`E f(z)^2`. A matrix whose singular values are all `1 / sqrt(E f(z)^2)` makes
inputs of the next activation of it that have mean square 1 again, so that
neither a signal nor its gradient shrinks with depth through ReLUs. He et al.,
"Delving deep into rectifiers", 2015, equations 10 and 15, where the variance
of independent weights is chosen so.
"""

import functools
import math

from keras import activations
from keras import layers

from tf_spectral.layers.modrelu import ModReLU

# E f(z)^2 for standard normal z. Where no closed form is given, by
# integration (a test repeats it).
_MEAN_SQUARES = {
    activations.linear: 1.0,
    activations.relu: 1 / 2,
    activations.leaky_relu: (1 + 0.2**2) / 2,
    activations.elu: 0.6449454175,
    # By the choice of its two constants.
    activations.selu: 1.0,
    activations.gelu: 0.4252214826,
    activations.mish: 0.4523421924,
    activations.sigmoid: 0.2933790358,
    activations.silu: 0.3557755198,
    activations.softplus: 0.9212459088,
    activations.softsign: 0.1830140213,
    activations.tanh: 0.3942944904,
}


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
    >>> from tf_spectral.layers.gains import activation_gain
    >>> round(activation_gain(keras.activations.relu), 4)
    1.4142

    Reference: He et al., "Delving deep into rectifiers", 2015, equations 10
    and 15.
    """
    slope = _slope(activation)
    if slope is not None:
        return math.sqrt(2 / (1 + slope**2))
    if isinstance(activation, ModReLU):
        return 1.0
    try:
        return 1 / math.sqrt(_MEAN_SQUARES[activation])
    except (KeyError, TypeError):
        known = sorted(f.__name__ for f in _MEAN_SQUARES)
        raise ValueError(
            "The gain of the activation is not known. Expected a number as "
            f"`sigma_center`, or one of the activations {known}, LeakyReLU "
            'or "modrelu", Received: sigma_center="auto", '
            f"activation={activation}"
        ) from None


def _slope(activation):
    if isinstance(activation, layers.LeakyReLU):
        return activation.negative_slope
    if isinstance(activation, functools.partial):
        if activation.func is activations.leaky_relu and not activation.args:
            return activation.keywords.get("negative_slope", 0.2)
    return None
