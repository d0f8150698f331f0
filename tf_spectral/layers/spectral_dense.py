"""SpectralDense: a dense layer whose singular values are bounded."""

import math

from keras import constraints
from keras import initializers
from keras import layers
from keras import ops
from keras import regularizers
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.backend.tensors import is_sparse
from tf_spectral.checks import real_tensor
from tf_spectral.layers.recurrence import low_rank_pays
from tf_spectral.layers.spectral_kernel import SpectralKernel
from tf_spectral.layers.spectral_rnn import FORMS
from tf_spectral.linalg.spectral import times_diagonal_plus_low_rank


@register_keras_serializable("tf_spectral")
class SpectralDense(SpectralKernel):
    """A dense layer whose kernel has bounded singular values.

    Takes the place of `keras.layers.Dense`: `f(x K + b)` with `K = V
    diag(sigma) U^T` of shape `(n_in, units)`, U and V products of Householder
    reflectors and `sigma` within `[sigma_center - sigma_radius, sigma_center
    + sigma_radius]`. Many such layers on top of each other can be trained.

    An activation `f` that shrinks its input makes a signal vanish in a deep
    stack with `sigma_center=1`; `"auto"` makes up for it, by too much where
    reflectors are few (see `tf_spectral.activations.activation_gain`). In a
    residual branch, `x + f(x K + b)`, use `sigma_center=0.0`: each branch
    then starts from nothing and may add up to `sigma_radius` times the
    signal.

    Args:
        units: Positive integer, the width of the output.
        activation: Keras activation, or `"modrelu"` (a trainable
            `tf_spectral.layers.ModReLU`). Defaults to `None`, the identity.
        use_bias: Boolean. Defaults to `True`.
        reflectors: `None` for `min(n_in, units)` in U and in V (K can be any
            matrix within the bounds), an integer for both (no more than that
            are made), or a pair `(m_u, m_v)`. Fewer are cheaper: 16 for 128
            units is a good start. Defaults to `None`.
        sigma_center: Non-negative float, the middle of the singular values,
            or `"auto"` for the gain of the activation
            (`tf_spectral.activations.activation_gain`): 1 without one,
            `sqrt(2 / (1 + a^2))` for a leaky ReLU of slope `a`, 1.59 for
            tanh. Defaults to `1.0`.
        sigma_radius: Positive float, smaller than a positive center. Defaults
            to `0.01`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`: see
            `tf_spectral.parametrizations.SVD`. Defaults to `"sigmoid"`.
        reflector_initializer: Name of, or a
            `tf_spectral.initializers.ReflectorInitializer`. Defaults to
            `"gaussian"`.
        bias_initializer: Keras initializer of b. Defaults to `"zeros"`.
        kernel_regularizer: Keras regularizer of K. Defaults to `None`.
        sigma_regularizer: Keras regularizer of `sigma`. Defaults to `None`.
        annealed_radius: Boolean, whether the radius can change during
            training, see `tf_spectral.callbacks.SigmaRadiusSchedule`.
            Defaults to `False`.
        bias_regularizer: Keras regularizer of b. Defaults to `None`.
        activity_regularizer: Keras regularizer of the output. Defaults to
            `None`.
        bias_constraint: Keras constraint of b. Defaults to `None`.
        form: `"dense"` to form K and multiply by it, `"low_rank"` to multiply
            by the equal `diag(sigma) - P Q^T` of rank `m_u + m_v`, `"auto"`
            for the one that takes fewer operations for this batch. Defaults
            to `"auto"`.
        **kwargs: Arguments of `keras.layers.Layer`. The arguments of `Dense`
            `kernel_initializer`, `kernel_constraint`, `lora_rank`,
            `lora_alpha` and `quantization_config` do not apply to a kernel
            that is kept by its decomposition.

    Call arguments:
        inputs: Tensor `(batch, ..., n_in)`. A sparse one, where Keras' own
            layer takes it, is multiplied by K whatever the `form`.

    Returns:
        Tensor `(batch, ..., units)`.

    Raises:
        ValueError: If an argument is out of range or does not apply, and in
            `call` if the inputs are complex.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralDense
    >>> layer = SpectralDense(128, "leaky_relu", sigma_center="auto")
    >>> tuple(layer(np.random.rand(32, 64).astype("float32")).shape)
    (32, 128)
    >>> tuple(layer.singular_values().shape)
    (64,)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, sections 3 and 5 (Spectral-MLP
    and Spectral-ResNet in section 7).
    """

    stock = layers.Dense
    own_options = (*SpectralKernel.own_options, "form")

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        reflector_initializer="gaussian",
        bias_initializer="zeros",
        kernel_regularizer=None,
        sigma_regularizer=None,
        annealed_radius=False,
        bias_regularizer=None,
        activity_regularizer=None,
        bias_constraint=None,
        form="auto",
        **kwargs,
    ):
        units = checks.integer("units", units, minimum=1)
        form = checks.choice("form", form, FORMS)
        use_bias = checks.boolean("use_bias", use_bias)
        super().__init__(
            activation=activation,
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            reflector_initializer=reflector_initializer,
            kernel_regularizer=kernel_regularizer,
            sigma_regularizer=sigma_regularizer,
            annealed_radius=annealed_radius,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.units = units
        self.check_width(self.units)
        self.use_bias = use_bias
        self.bias_initializer = checks.initializer(
            "bias_initializer", bias_initializer
        )
        self.bias_regularizer = checks.regularizer(
            "bias_regularizer", bias_regularizer
        )
        self.bias_constraint = checks.constraint(
            "bias_constraint", bias_constraint
        )
        self.form = form
        self.input_spec = layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    def build(self, input_shape):
        n_in = input_shape[-1]
        self.build_kernel(n_in, self.units)
        self.input_spec = layers.InputSpec(min_ndim=2, axes={-1: n_in})

    def call(self, inputs):
        x = real_tensor("inputs", inputs, self.compute_dtype)
        if is_sparse(x):
            outputs = ops.matmul(x, self._kernel())
        else:
            outputs = self._dense_times_kernel(x)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self._activated(outputs)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": regularizers.serialize(
                self.activity_regularizer
            ),
            "bias_constraint": constraints.serialize(self.bias_constraint),
            "form": self.form,
        }

    def _kernel(self):
        return ops.cast(self.svd.matrix(), self.compute_dtype)

    def _dense_times_kernel(self, x):
        # One product of matrices is cheaper than a batch of them.
        rows = x if x.ndim == 2 else ops.reshape(x, (-1, x.shape[-1]))
        outputs = self._times_kernel(rows, _number(x.shape[:-1]))
        if x.ndim == 2:
            return outputs
        return ops.reshape(outputs, (*ops.shape(x)[:-1], self.units))

    def _times_kernel(self, rows, number):
        low_rank = self.form == "low_rank"
        if self.form == "auto":
            # Of the sides of a rectangle their harmonic mean counts.
            side = 2 / sum(1 / n for n in self.svd.shape)
            low_rank = low_rank_pays(side, sum(self.svd.reflectors), number)
        if not low_rank:
            return rows @ self._kernel()
        factors = self.svd.diagonal_plus_low_rank()
        factors = (ops.cast(t, self.compute_dtype) for t in factors)
        return times_diagonal_plus_low_rank(rows, *factors)


def _number(shape):
    """The number of rows in these axes, or `None` where one is not known."""
    shape = tuple(shape)
    return None if None in shape else math.prod(shape)
