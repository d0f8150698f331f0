"""SpectralRNN and its cell: the singular values of R are bounded."""

from keras import layers
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.layers.conversion import bounds_for
from tf_spectral.layers.conversion import carry_trainable
from tf_spectral.layers.conversion import check_stock
from tf_spectral.layers.recurrence import Dense
from tf_spectral.layers.recurrence import DiagonalPlusLowRank
from tf_spectral.layers.recurrence import low_rank_pays
from tf_spectral.layers.simple_rnn import FastRNN
from tf_spectral.layers.simple_rnn import FastRNNCell
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.parametrizations.svd import SVD

FORMS = ("auto", "dense", "low_rank")

# Of a free matrix.
_REFUSED_OPTIONS = ("recurrent_initializer", "recurrent_constraint")


@register_keras_serializable("tf_spectral")
class SpectralRNNCell(FastRNNCell):
    """Cell of `SpectralRNN`: `h' = f(x K + b + h R)`.

    The recurrent matrix `R = V diag(sigma) U^T` is kept by its singular value
    decomposition: U and V are products of Householder reflectors and the
    singular values stay in `[sigma_center - sigma_radius, sigma_center +
    sigma_radius]`. In a plain `keras.layers.RNN` the matrix is formed once
    for each sequence.

    Args:
        units: Positive integer `n`, the size of the state.
        reflectors: `None` for `n` in U and in V (R can be any matrix within
            the bounds), an integer for both, or a pair `(m_u, m_v)`. Fewer
            are cheaper. Defaults to `None`.
        sigma_center: Non-negative float, the middle of the singular values.
            Defaults to `1.0`.
        sigma_radius: Float between 0 and `sigma_center`. Defaults to `0.01`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`: see
            `tf_spectral.parametrizations.SVD`. Defaults to `"sigmoid"`.
        activation: Name or function of a Keras activation, or `"modrelu"`
            (a trainable `tf_spectral.layers.ModReLU`). Defaults to
            `"leaky_relu"` (negative slope 0.2).
        use_bias: Boolean. Defaults to `True`.
        trainable_initial_state: Boolean, whether the initial state is a
            trained vector and not zero. Defaults to `False`.
        kernel_initializer: Keras initializer of K. Defaults to
            `"glorot_uniform"`.
        reflector_initializer: Name of, or a
            `tf_spectral.initializers.ReflectorInitializer`; its
            `reflector_scale` sets how fast R turns under Adam. Defaults to
            `"gaussian"`.
        bias_initializer: Keras initializer of b. Defaults to `"zeros"`.
        kernel_regularizer: Keras regularizer of K. Defaults to `None`.
        recurrent_regularizer: Keras regularizer of the matrix R. Defaults to
            `None`.
        sigma_regularizer: Keras regularizer of the singular values. Defaults
            to `None`.
        annealed_radius: Boolean, whether the radius can change during
            training, see `tf_spectral.callbacks.SigmaRadiusSchedule`.
            Defaults to `False`.
        bias_regularizer: Keras regularizer of b. Defaults to `None`.
        kernel_constraint: Keras constraint of K. Defaults to `None`.
        bias_constraint: Keras constraint of b. Defaults to `None`.
        dropout: Float in [0, 1], the share of inputs to drop. Defaults to 0.
        recurrent_dropout: Float in [0, 1], the share of states to drop on
            their way to R. Defaults to 0.
        form: `"dense"` to multiply by R, `"low_rank"` to multiply by the
            equal `diag(sigma) - P Q^T` of rank `m_u + m_v`, `"auto"` for the
            cheaper one. Defaults to `"auto"`.
        seed: Integer seed of the dropout. Defaults to `None`.

    Call arguments:
        sequence: Floating or integer tensor `(batch, features)`.
        states: List of one floating tensor `(batch, units)`.
        training: Boolean, whether dropout applies.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.layers import SpectralRNNCell
    >>> rnn = keras.layers.RNN(SpectralRNNCell(8, reflectors=2))
    >>> tuple(rnn(np.random.rand(4, 10, 3).astype("float32")).shape)
    (4, 8)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 4.
    """

    def __init__(
        self,
        units,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        activation="leaky_relu",
        use_bias=True,
        trainable_initial_state=False,
        kernel_initializer="glorot_uniform",
        reflector_initializer="gaussian",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        sigma_regularizer=None,
        annealed_radius=False,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        form="auto",
        seed=None,
        **kwargs,
    ):
        for name in _REFUSED_OPTIONS:
            if name in kwargs:
                raise ValueError(
                    f"Argument `{name}` does not apply to a matrix that is "
                    "kept by its decomposition. Expected "
                    "`reflector_initializer` or the bounds of sigma, "
                    f"Received: {name}={kwargs[name]}"
                )
        units = checks.integer("units", units, minimum=1)
        form = checks.choice("form", form, FORMS)
        recurrent_regularizer = checks.regularizer(
            "recurrent_regularizer", recurrent_regularizer
        )
        super().__init__(
            units,
            activation,
            trainable_initial_state,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )
        self.form = form
        self.recurrent = SVD(
            (units, units),
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            reflector_initializer=reflector_initializer,
            sigma_regularizer=sigma_regularizer,
            annealed_radius=annealed_radius,
            matrix_regularizer=recurrent_regularizer,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name="recurrent",
        )
        self.recurrent_regularizer = self.recurrent.matrix_regularizer

    def build_recurrent(self):
        # It may have been set since.
        self.recurrent.matrix_regularizer = self.recurrent_regularizer
        if not self.recurrent.built:
            self.recurrent.build()

    def recurrent_matrix(self):
        """The matrix R: tensor `(units, units)`, acting as `h -> h R`."""
        return self.recurrent.matrix()

    def singular_values(self):
        """The singular values of R: tensor `(units,)`, in no order."""
        return self.recurrent.singular_values()

    def transition(self, rows=None):
        """R, cast to the compute dtype, in the form that costs least.

        Args:
            rows: Integer, how many rows will be multiplied (batch times
                time), or `None` for many.

        Returns:
            A `Dense` or a `DiagonalPlusLowRank`.
        """
        low_rank = self.form == "low_rank"
        if self.form == "auto":
            rank = sum(self.recurrent.reflectors)
            low_rank = low_rank_pays(self.units, rank, rows)
        if low_rank:
            tensors = self.recurrent.diagonal_plus_low_rank()
            form = DiagonalPlusLowRank
        else:
            tensors, form = (self.recurrent.matrix(),), Dense
        return form(*(ops.cast(t, self.compute_dtype) for t in tensors))

    def get_config(self):
        config = super().get_config()
        for key in _REFUSED_OPTIONS:
            del config[key]
        svd = self.recurrent.get_config()
        for key in (
            "reflectors",
            "sigma_center",
            "sigma_radius",
            "sigma_mode",
            "reflector_initializer",
            "sigma_regularizer",
            "annealed_radius",
        ):
            config[key] = svd[key]
        return {**config, "form": self.form}


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
class SpectralRNN(FastRNN):
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
            key: kwargs.pop(key)
            for key in (*_CELL_OPTIONS, *_REFUSED_OPTIONS)
            if key in kwargs
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
            without=_REFUSED_OPTIONS,
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
