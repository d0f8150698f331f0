"""Derivatives of activations, from their outputs alone.

A recurrence that keeps only its states can go back through time with these:
for each activation here the derivative at `z` is a function of `h = f(z)`.
"""

import functools

import keras
from keras import activations
from keras import layers
from keras import ops

from tf_spectral.layers.modrelu import ModReLU

if keras.backend.backend() == "tensorflow":
    from tensorflow import raw_ops


def pullback_from_output(activation):
    """Function `(cotangent of f(z), f(z)) -> cotangent of z`, or `None`.

    Args:
        activation: A Keras activation: a function, a `ModReLU` or a
            `keras.layers.LeakyReLU`.

    Returns:
        A function of two tensors, or `None` where the derivative is no known
        function of the output.
    """
    if type(activation) is ModReLU:
        return _modrelu
    if type(activation) is layers.LeakyReLU:
        return _leaky_relu(activation.negative_slope)
    if isinstance(activation, functools.partial):
        if activation.func is activations.leaky_relu and not activation.args:
            return _leaky_relu(activation.keywords.get("negative_slope", 0.2))
        return None
    try:
        return _PULLBACKS.get(activation)
    except TypeError:
        return None


def _leaky_relu(slope):
    # A negative slope loses the sign of z.
    if not slope >= 0:
        return None
    if keras.backend.backend() == "tensorflow":
        return lambda g, h: raw_ops.LeakyReluGrad(
            gradients=g, features=h, alpha=slope
        )
    return lambda g, h: ops.where(h > 0, g, slope * g)


def _modrelu(g, h):
    return ops.where(h != 0, g, ops.zeros_like(g))


_PULLBACKS = {
    activations.linear: lambda g, h: g,
    activations.relu: lambda g, h: ops.where(h > 0, g, ops.zeros_like(g)),
    activations.leaky_relu: _leaky_relu(0.2),
    activations.tanh: lambda g, h: g * (1 - h * h),
    activations.sigmoid: lambda g, h: g * (h * (1 - h)),
    activations.softsign: lambda g, h: g * ops.square(1 - ops.abs(h)),
    activations.elu: lambda g, h: ops.where(h > 0, g, g * (h + 1)),
}

if keras.backend.backend() == "tensorflow":
    # Without XLA each operation is a pass over memory; these take one.
    _PULLBACKS |= {
        activations.relu: lambda g, h: raw_ops.ReluGrad(
            gradients=g, features=h
        ),
        activations.tanh: lambda g, h: raw_ops.TanhGrad(y=h, dy=g),
        activations.sigmoid: lambda g, h: raw_ops.SigmoidGrad(y=h, dy=g),
        activations.elu: lambda g, h: raw_ops.EluGrad(gradients=g, outputs=h),
    }
