"""ModReLU: rectifies the size of its input and keeps the sign."""

from keras import constraints
from keras import initializers
from keras import layers
from keras import ops
from keras import regularizers
from keras.saving import register_keras_serializable

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
