"""ModReLU: rectifies the size of its input and keeps the sign."""

import contextlib

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
