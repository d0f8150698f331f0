"""SpectralKernel: what layers share whose kernel is kept by its SVD."""

import math

from keras import activations
from keras import layers
from keras import ops
from keras import regularizers
from keras.saving import serialize_keras_object

from tf_spectral import checks
from tf_spectral import initializers
from tf_spectral.activations import ModReLU
from tf_spectral.activations import activation_gain
from tf_spectral.activations import get_activation
from tf_spectral.activations import plain_activation
from tf_spectral.activations import serialize_activation
from tf_spectral.layers.conversion import SPECTRAL_OPTIONS
from tf_spectral.layers.conversion import Convertible
from tf_spectral.layers.conversion import plain_reflectors
from tf_spectral.layers.conversion import usable_reflectors
from tf_spectral.linalg.factorization import check_reflectors
from tf_spectral.parametrizations.singular_values import check_sigma
from tf_spectral.parametrizations.svd import SVD
from tf_spectral.parametrizations.svd import check_annealed
from tf_spectral.parametrizations.svd import check_penalties

# Options of the stock layers, and what there is instead.
_REFUSED = {
    "kernel_initializer": "`reflector_initializer` and the bounds of sigma",
    "kernel_constraint": "the bounds of sigma",
    "lora_rank": "a smaller `sigma_radius` for a small change of the kernel",
    "lora_alpha": "a smaller `sigma_radius` for a small change of the kernel",
    "quantization_config": "the stock layer of `to_stock()`, to be quantized",
}


class SpectralKernel(Convertible, layers.Layer):
    """Base of the feed-forward layers with a kernel of bounded sigma.

    A subclass calls `build_kernel` in its `build`.

    Args:
        *args: Arguments of the next class.
        activation: Keras activation, or `"modrelu"`.
        reflectors: `None`, an integer or a pair `(m_u, m_v)`.
        sigma_center: Float, or `"auto"` for `activation_gain(activation)`.
        sigma_radius: Float.
        sigma_mode: String.
        reflector_initializer: Name or `ReflectorInitializer`.
        kernel_regularizer: Keras regularizer of the kernel as a matrix.
        sigma_regularizer: Keras regularizer of the singular values.
        annealed_radius: Boolean, see `SVD`.
        **kwargs: Arguments of the next class.

    Attributes:
        svd: The `tf_spectral.parametrizations.SVD` of the kernel, once built.
    """

    decomposed = ("kernel",)
    own_options = SPECTRAL_OPTIONS
    refused_options = tuple(_REFUSED)

    def __init__(
        self,
        *args,
        activation=None,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        reflector_initializer="gaussian",
        kernel_regularizer=None,
        sigma_regularizer=None,
        annealed_radius=False,
        **kwargs,
    ):
        for name in _REFUSED.keys() & kwargs.keys():
            raise ValueError(
                f"Argument `{name}` does not apply to a kernel that is kept "
                f"by its decomposition. Expected {_REFUSED[name]}, "
                f"Received: {name}={kwargs[name]}"
            )
        super().__init__(*args, **checks.layer_options(kwargs))
        if self.dtype_policy.quantization_mode is not None:
            raise ValueError(
                "Argument `dtype` cannot be quantized for a kernel that is "
                "kept by its decomposition. Expected a floating policy, "
                f"Received: dtype={self.dtype_policy.name}"
            )
        self.activation = get_activation(activation, self.dtype_policy)
        self.reflectors = plain_reflectors(reflectors)
        self.sigma_center = sigma_center
        self.sigma_mode, center, self.sigma_radius = check_sigma(
            sigma_mode, self._center(), sigma_radius
        )
        if not isinstance(sigma_center, str):
            self.sigma_center = center
        self.reflector_initializer = initializers.get_reflector_initializer(
            reflector_initializer, "reflector_initializer"
        )
        self.kernel_regularizer = checks.regularizer(
            "kernel_regularizer", kernel_regularizer
        )
        self.sigma_regularizer = checks.regularizer(
            "sigma_regularizer", sigma_regularizer
        )
        self.annealed_radius = checks.boolean(
            "annealed_radius", annealed_radius
        )

    def check_width(self, n_out):
        """Raises where the options do not go together; the input comes later.

        Args:
            n_out: Integer, the number of columns of the kernel.
        """
        usable = usable_reflectors(self.reflectors, math.inf, n_out)
        m_u, _ = check_reflectors(usable, math.inf, n_out)
        check_annealed(self.annealed_radius, self.sigma_mode)
        check_penalties(
            m_u,
            self.sigma_mode,
            sigma_regularizer=self.sigma_regularizer,
            kernel_regularizer=self.kernel_regularizer,
        )

    @classmethod
    def from_config(cls, config):
        # Keras' own would hide what the constructor says in a longer error.
        return cls(**config)

    def build_kernel(self, n_in, n_out):
        """Makes the weights of a kernel `(n_in, n_out)`, and the bias."""
        self.svd = SVD(
            (n_in, n_out),
            reflectors=usable_reflectors(self.reflectors, n_in, n_out),
            sigma_center=self._center(),
            sigma_radius=self.sigma_radius,
            sigma_mode=self.sigma_mode,
            reflector_initializer=self.reflector_initializer,
            sigma_regularizer=self.sigma_regularizer,
            matrix_regularizer=self.kernel_regularizer,
            annealed_radius=self.annealed_radius,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name="kernel",
        )
        self.svd.build()
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(n_out,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if isinstance(self.activation, ModReLU) and not self.activation.built:
            self.activation.build((None, n_out))
        self.built = True

    @property
    def kernel(self):
        """The kernel, formed of its factors: tensor in float32 or float64."""
        return self.matrix()

    @property
    def svds(self):
        """Dict from the name of the kernel to its `SVD`."""
        return {self.decomposed[0]: self.svd}

    def matrix(self):
        """The kernel as a matrix: tensor `(n_in, n_out)`."""
        if not self.built:
            raise AttributeError("The layer must be built. Received: no kernel")
        return self.svd.matrix()

    def singular_values(self):
        """The singular values of `matrix()`, in no order."""
        return self._built_svd().singular_values()

    def condition_number(self):
        """The largest singular value divided by the smallest."""
        return self._built_svd().condition_number()

    def log_abs_det(self):
        """`log |det matrix()|`; raises unless it is square."""
        return self._built_svd().log_abs_det()

    def solve(self, y):
        """Rows `x` with `x matrix() = y`; see `SVD.solve`."""
        return self._built_svd().solve(y)

    def truncated_matrix(self, rank):
        """The matrix of that rank which is nearest to `matrix()`."""
        return self._built_svd().truncated_matrix(rank)

    def _built_svd(self):
        if not self.built:
            raise ValueError(
                f"Layer `{self.name}` has no kernel yet. Expected it to be "
                "called or built first, Received: built=False"
            )
        return self.svd

    def quantize(self, *args, **kwargs):
        """Raises: it is the layer of `to_stock()` that can be quantized."""
        raise NotImplementedError(
            "A kernel that is kept by its decomposition cannot be quantized. "
            f"Expected the layer of `to_stock()`, Received: {self.name}"
        )

    def enable_lora(self, *args, **kwargs):
        """Raises: it is the layer of `to_stock()` that can be adapted."""
        raise NotImplementedError(
            "A kernel that is kept by its decomposition has no LoRA. "
            f"Expected the layer of `to_stock()`, Received: {self.name}"
        )

    def save_own_variables(self, store):
        layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        layers.Layer.load_own_variables(self, store)

    def get_config(self):
        with plain_activation(self):
            config = super().get_config()
        return {
            **{k: v for k, v in config.items() if k not in _REFUSED},
            "activation": serialize_activation(self.activation),
            "reflectors": self.reflectors,
            "sigma_center": self.sigma_center,
            "sigma_radius": self.sigma_radius,
            "sigma_mode": self.sigma_mode,
            "reflector_initializer": serialize_keras_object(
                self.reflector_initializer
            ),
            "kernel_regularizer": regularizers.serialize(
                self.kernel_regularizer
            ),
            "sigma_regularizer": regularizers.serialize(self.sigma_regularizer),
            "annealed_radius": self.annealed_radius,
        }

    def _center(self):
        if isinstance(self.sigma_center, str) and self.sigma_center == "auto":
            return activation_gain(self.activation or activations.linear)
        return self.sigma_center

    def _activated(self, outputs):
        if self.activation is not None:
            outputs = self.activation(outputs)
        # Keras' own tanh returns float32 for float64 on JAX.
        return ops.cast(outputs, self.compute_dtype)
