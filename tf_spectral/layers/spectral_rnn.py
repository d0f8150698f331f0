"""SpectralRNN: a recurrent layer with bounded singular values."""

from keras import layers
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.layers.conversion import bounds_for
from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.layers.conversion import check_stock
from tf_spectral.layers.like_simple_rnn import LikeSimpleRNN
from tf_spectral.layers.spectral_rnn_cell import SpectralRNNCell
from tf_spectral.linalg.checks import working_dtype

_EXPLICIT = (
    "reflectors",
    "sigma_center",
    "sigma_radius",
    "sigma_mode",
    "activation",
)
_CELL_OPTIONS = (
    "use_bias",
    "trainable_initial_state",
    "kernel_initializer",
    "reflector_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "sigma_regularizer",
    "annealed_radius",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
    "form",
    "seed",
)


@register_keras_serializable("tf_spectral")
class SpectralRNN(LikeSimpleRNN):
    """A simple RNN whose recurrent matrix has bounded singular values.

    Takes the place of `keras.layers.SimpleRNN`: `h_t = f(x_t K + b + h_{t-1}
    R)` with `R = V diag(sigma) U^T`, U and V products of Householder
    reflectors and `sigma` within `[sigma_center - sigma_radius, sigma_center
    + sigma_radius]`. The gradient through `T` steps changes its length by at
    most `(sigma_center + sigma_radius)^T` times what the activation does.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None` for `n` in U and in V, an integer for both, or a
            pair `(m_u, m_v)`. 16 for 128 units is a good start. Defaults to
            `None`.
        sigma_center: Non-negative float. Defaults to `1.0`.
        sigma_radius: Float between 0 and `sigma_center`. Defaults to `0.01`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`. Defaults to
            `"sigmoid"`.
        activation: Keras activation or `"modrelu"`. Defaults to
            `"leaky_relu"`.
        return_sequences: Boolean, whether to return all states and not only
            the last. Defaults to `False`.
        return_state: Boolean, whether to return the last state as well.
            Defaults to `False`.
        go_backwards: Boolean, whether to read (and return) the sequence
            reversed. Defaults to `False`.
        stateful: Boolean, whether a batch goes on from the states of the one
            before. Defaults to `False`.
        unroll: Boolean, whether to unroll Keras' own loop. Defaults to
            `False`; the fast loop is a better choice for all but a few steps.
        **kwargs: All other arguments of `SpectralRNNCell`
            (`kernel_initializer`, `reflector_initializer`, the regularizers
            and constraints, `annealed_radius`, `use_bias`,
            `trainable_initial_state`, `dropout`, `recurrent_dropout`, `form`,
            `seed`) and of `keras.layers.Layer`.

    Call arguments:
        sequences: Floating or integer tensor `(batch, time, features)`.
        initial_state: List of one floating tensor `(batch, units)`.
        mask: Boolean tensor `(batch, time)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range, and in `call` if the
            sequences are complex or have no step.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralRNN
    >>> layer = SpectralRNN(128, reflectors=16)
    >>> tuple(layer(np.random.rand(4, 20, 1).astype("float32")).shape)
    (4, 128)
    >>> tuple(layer.singular_values().shape)
    (128,)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 4.
    """

    cell_arguments = ("units", *_EXPLICIT, *_CELL_OPTIONS)

    def __init__(
        self,
        units,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        activation="leaky_relu",
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        **kwargs,
    ):
        cell_options = {
            key: kwargs.pop(key) for key in _CELL_OPTIONS if key in kwargs
        }
        cell = SpectralRNNCell(
            units,
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            activation=activation,
            **cell_options,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="spectral_rnn_cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            **kwargs,
        )

    def singular_values(self):
        """The singular values of R: tensor `(units,)`, in no order."""
        return self.cell.singular_values()

    @classmethod
    def from_stock(
        cls,
        layer,
        reflectors=None,
        sigma_center=None,
        sigma_radius=None,
        sigma_mode="sigmoid",
        exact=True,
        **kwargs,
    ):
        """A `SpectralRNN` that computes what a built `SimpleRNN` does.

        As `from_simple_rnn`, but with bounds that are chosen to hold the
        singular values of the recurrent kernel, as the `from_stock` of the
        other spectral layers does.

        Args:
            layer: Built `keras.layers.SimpleRNN`, and of no subclass of it.
            reflectors: As for the constructor; `None` reaches any matrix.
            sigma_center: As for the constructor. `None` takes the middle of
                the singular values, or 0 where they come close to zero.
            sigma_radius: As for the constructor. `None` takes a tenth more
                than the singular values need, and at least a hundredth of the
                center.
            sigma_mode: As for the constructor. Defaults to `"sigmoid"`.
            exact: As for `from_simple_rnn`. Defaults to `True`.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer cannot be converted, if no radius below
                the given center is wide enough, or if `exact` and the
                reflectors are too few or the bounds too narrow.
        """
        check_stock(layer, layers.SimpleRNN)
        exact = checks.boolean("exact", exact)
        kernel = ops.convert_to_tensor(layer.cell.recurrent_kernel)
        center, radius = bounds_for(
            {"recurrent kernel": ops.cast(kernel, working_dtype(kernel.dtype))},
            reflectors,
            (sigma_mode, sigma_center, sigma_radius),
        )
        return cls.from_simple_rnn(
            layer,
            reflectors=reflectors,
            sigma_center=center,
            sigma_radius=radius,
            sigma_mode=sigma_mode,
            exact=exact,
            **kwargs,
        )

    @classmethod
    def from_simple_rnn(
        cls, layer, reflectors=None, sigma_mode="free", exact=True, **kwargs
    ):
        """A `SpectralRNN` that computes what a built `SimpleRNN` does.

        Args:
            layer: Built `keras.layers.SimpleRNN`.
            reflectors: As for the constructor; `None` reaches any matrix.
            sigma_mode: As for the constructor. Defaults to `"free"`, which
                takes any singular values.
            exact: Boolean. `False` also takes a kernel that the reflectors or
                the bounds cannot hold: by the fit of `SVD.assign_matrix`,
                whose relative residual is then the attribute
                `conversion_residual`. Defaults to `True`.
            **kwargs: Other arguments of the constructor, in place of those of
                `layer`.

        Raises:
            ValueError: If the layer is no built `SimpleRNN`, or if `exact`
                and the reflectors are too few for its recurrent kernel or a
                singular value lies outside of the bounds.
        """
        new = cls.like(
            layer,
            without=("recurrent_initializer", "recurrent_constraint"),
            reflectors=reflectors,
            sigma_mode=sigma_mode,
            **kwargs,
        )
        kernel = layer.cell.recurrent_kernel
        new.conversion_residual = new.cell.recurrent.assign_matrix(
            kernel, exact
        )
        carry_trainable(kernel, new.cell.recurrent)
        return new

    def to_simple_rnn(self):
        layer = super().to_simple_rnn()
        carry_trainable(self.cell.recurrent, layer.cell.recurrent_kernel)
        return layer

    def to_stock(self):
        """As `to_simple_rnn`, by the name that all spectral layers share."""
        return self.to_simple_rnn()
