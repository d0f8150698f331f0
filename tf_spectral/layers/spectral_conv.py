"""SpectralConv1D and SpectralConv2D: kernels of bounded singular values."""

import math

from keras import layers
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.activations import ModReLU
from tf_spectral.checks import real_tensor
from tf_spectral.layers.spectral_kernel import SpectralKernel


class SpectralConv(SpectralKernel):
    """What `SpectralConv1D` and `SpectralConv2D` share.

    Comes before a convolution of Keras among the bases of a class. Arguments
    are those of Keras' layer by name or place up to `use_bias`, by name from
    there on.

    Attributes:
        rank: Integer, how many axes a window has.
        paddings: Tuple of strings, the kinds of padding.
    """

    rank = None
    paddings = ("valid", "same")

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
        activation=None,
        use_bias=True,
        **kwargs,
    ):
        windows = {
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation_rate": dilation_rate,
        }
        formats = (None, "channels_last", "channels_first")
        super().__init__(
            checks.integer("filters", filters, minimum=1),
            padding=checks.choice("padding", _lower(padding), self.paddings),
            data_format=checks.choice(
                "data_format", _lower(data_format), formats
            ),
            groups=checks.integer("groups", groups, minimum=1),
            activation=activation,
            use_bias=checks.boolean("use_bias", use_bias),
            **{
                name: checks.shape(name, value, self.rank, repeat=True)
                for name, value in windows.items()
            },
            **kwargs,
        )
        self.check_width(self.filters)
        first = self.data_format == "channels_first"
        if first and isinstance(self.activation, ModReLU):
            raise ValueError(
                "A modReLU has a bias for each entry of the last axis. "
                "Expected data_format='channels_last', "
                f"Received: data_format={self.data_format}"
            )

    def build(self, input_shape):
        axis = -1 if self.data_format == "channels_last" else 1
        channels = input_shape[axis]
        if channels is None or channels % self.groups:
            raise ValueError(
                "The number of channels must be known and divisible by "
                f"`groups`. Received: input_shape={input_shape}, "
                f"groups={self.groups}"
            )
        # Raises where the windows do not fit.
        self.compute_output_shape(input_shape)
        n_in = math.prod(self.kernel_size) * channels // self.groups
        self.build_kernel(n_in, self.filters)
        self.input_spec = layers.InputSpec(
            min_ndim=self.rank + 2, axes={axis: channels}
        )

    @property
    def kernel(self):
        """The kernel: tensor `(*kernel_size, channels / groups, filters)`."""
        shape = (*self.kernel_size, -1, self.filters)
        return ops.reshape(self.matrix(), shape)

    def call(self, inputs):
        x = real_tensor("inputs", inputs, self.compute_dtype)
        last = self.data_format == "channels_last"
        padding = self.padding
        if padding == "causal":
            before = self.dilation_rate[0] * (self.kernel_size[0] - 1)
            time, channels = [before, 0], [0, 0]
            axes = [time, channels] if last else [channels, time]
            x, padding = ops.pad(x, [[0, 0], *axes]), "valid"
        outputs = ops.conv(
            x,
            ops.cast(self.kernel, self.compute_dtype),
            strides=list(self.strides),
            padding=padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            trailing = (1,) * (0 if last else self.rank)
            bias = ops.reshape(self.bias, (self.filters, *trailing))
            outputs = ops.add(outputs, bias)
        return self._activated(outputs)


def _lower(value):
    # As Keras does: "SAME" is "same".
    return value.lower() if isinstance(value, str) else value


@register_keras_serializable("tf_spectral")
class SpectralConv1D(SpectralConv, layers.Conv1D):
    """A convolution over time whose kernel has bounded singular values.

    Takes the place of `keras.layers.Conv1D`. All that `SpectralConv2D` says
    holds with a kernel matrix of shape `(k c_in / groups, filters)`.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Integer, the length `k` of the window.
        strides: Integer. Defaults to `1`.
        padding: `"valid"`, `"same"` or `"causal"`. Defaults to `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            that of the Keras configuration.
        dilation_rate: Integer. Defaults to `1`.
        groups: Integer. Defaults to `1`.
        activation: As for `SpectralDense`. Defaults to `None`.
        use_bias: Boolean. Defaults to `True`.
        **kwargs: As for `SpectralConv2D`.

    Call arguments:
        inputs: Tensor `(batch, time, channels)`.

    Raises:
        ValueError: If an argument is out of range or does not apply.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralConv1D
    >>> layer = SpectralConv1D(8, 3, padding="causal")
    >>> tuple(layer(np.random.rand(2, 10, 4).astype("float32")).shape)
    (2, 10, 8)

    Reference: Zhang et al., 2018, section 3, for the kernel as a matrix.
    """

    stock = layers.Conv1D
    rank = 1
    paddings = ("valid", "same", "causal")


@register_keras_serializable("tf_spectral")
class SpectralConv2D(SpectralConv, layers.Conv2D):
    """A convolution over images whose kernel has bounded singular values.

    Takes the place of `keras.layers.Conv2D`. The kernel `(kh, kw, c_in /
    groups, filters)` is, as a matrix K of shape `(kh kw c_in / groups,
    filters)`, `V diag(sigma) U^T` with U and V products of Householder
    reflectors and `sigma` bounded as in `SpectralDense`.

    The bounds are those of K, which acts on one window at a time, not of the
    whole convolution. Windows overlap: an input is in at most `n = ceil(kh /
    sh) ceil(kw / sw)` of them for strides `(sh, sw)`, so that the convolution
    lengthens a signal by at most `sqrt(n) (sigma_center + sigma_radius)`,
    `sqrt(kh kw)` times the bound for strides of 1. There is no such bound from
    below: the convolution may shorten a signal by any factor.

    Args:
        filters: Positive integer, the number of output channels.
        kernel_size: Integer or pair of integers `(kh, kw)`.
        strides: Integer or pair of integers. Defaults to `1`.
        padding: `"valid"` or `"same"`. Defaults to `"valid"`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to
            that of the Keras configuration.
        dilation_rate: Integer or pair of integers. Defaults to `1`.
        groups: Integer that divides the numbers of input channels and of
            filters. The columns of K are then shared out among the groups.
            Defaults to `1`.
        activation: As for `SpectralDense`. Defaults to `None`.
        use_bias: Boolean. Defaults to `True`.
        **kwargs: The arguments `reflectors` (`None` for `min(K.shape)` in U
            and in V), `sigma_center`, `sigma_radius`, `sigma_mode`,
            `reflector_initializer`, `kernel_regularizer` (of K as a matrix),
            `sigma_regularizer`, `annealed_radius`, `bias_initializer`,
            `bias_regularizer`, `activity_regularizer` and `bias_constraint`
            of `SpectralDense`, and those of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor `(batch, height, width, channels)`.

    Raises:
        ValueError: If an argument is out of range or does not apply.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralConv2D
    >>> layer = SpectralConv2D(8, 3, padding="same", activation="relu")
    >>> tuple(layer(np.random.rand(2, 6, 6, 4).astype("float32")).shape)
    (2, 6, 6, 8)
    >>> tuple(layer.kernel.shape)
    (3, 3, 4, 8)

    Reference: Zhang et al., 2018, section 3, for the kernel as a matrix;
    Tsuzuku et al., "Lipschitz-margin training", 2018, for the bound of the
    convolution.
    """

    stock = layers.Conv2D
    rank = 2
