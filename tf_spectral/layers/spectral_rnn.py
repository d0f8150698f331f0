"""SpectralRNN and its cell: the singular values of R are bounded."""

from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.layers.conversion import SPECTRAL_OPTIONS
from tf_spectral.layers.recurrence import Dense
from tf_spectral.layers.recurrence import DiagonalPlusLowRank
from tf_spectral.layers.recurrence import low_rank_pays
from tf_spectral.layers.rnn import REFUSED_RECURRENT_OPTIONS
from tf_spectral.layers.rnn import chosen_reflectors
from tf_spectral.layers.rnn import chosen_start
from tf_spectral.layers.rnn import of_cell
from tf_spectral.layers.rnn import refuse_recurrent_options
from tf_spectral.layers.simple_rnn import FastRNN
from tf_spectral.layers.simple_rnn import FastRNNCell
from tf_spectral.parametrizations.svd import SVD

FORMS = ("auto", "dense", "low_rank")


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
            are cheaper. Defaults to `"auto"`: 16, or `n` if that is less.
        sigma_center: Non-negative float, the middle of the singular values.
            Defaults to `1.0`.
        sigma_radius: Positive float, smaller than a positive `sigma_center`.
            Defaults to `0.1`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`: see
            `tf_spectral.parametrizations.SVD`. Defaults to `"sigmoid"`.
        activation: Name or function of a Keras activation, or `"modrelu"`
            (a trainable `tf_spectral.layers.ModReLU`). Defaults to `"elu"`,
            whose slope at zero is 1.
        use_bias: Boolean. Defaults to `True`.
        trainable_initial_state: Boolean, whether the initial state is a
            trained vector and not zero. Defaults to `False`.
        kernel_initializer: Keras initializer of K. Defaults to
            `"glorot_uniform"`.
        reflector_initializer: Name of, or a
            `tf_spectral.initializers.ReflectorInitializer`; its
            `reflector_scale` sets how fast R turns under Adam. Defaults to
            `"auto"`: `IdentityReflectors(0.1)`, with which R starts as
            `sigma_center` times the identity and gradients reach the first of
            hundreds of steps; `GaussianReflectors(0.1)` where `m_u` is not
            `m_v`.
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
        reflectors="auto",
        sigma_center=1.0,
        sigma_radius=0.1,
        sigma_mode="sigmoid",
        activation="elu",
        use_bias=True,
        trainable_initial_state=False,
        kernel_initializer="glorot_uniform",
        reflector_initializer="auto",
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
        refuse_recurrent_options(kwargs)
        units = checks.integer("units", units, minimum=1)
        form = checks.choice("form", form, FORMS)
        reflectors = chosen_reflectors(units, reflectors)
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
        self.svd = SVD(
            (units, units),
            reflectors=reflectors,
            sigma_center=sigma_center,
            sigma_radius=sigma_radius,
            sigma_mode=sigma_mode,
            reflector_initializer=chosen_start(
                units, reflectors, reflector_initializer
            ),
            sigma_regularizer=sigma_regularizer,
            annealed_radius=annealed_radius,
            matrix_regularizer=recurrent_regularizer,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name="recurrent",
        )
        self.recurrent_regularizer = self.svd.matrix_regularizer

    def build_recurrent(self):
        # It may have been set since.
        self.svd.matrix_regularizer = self.recurrent_regularizer
        if not self.svd.built:
            self.svd.build()

    def matrix(self):
        """The matrix R: tensor `(units, units)`, acting as `h -> h R`."""
        return self.svd.matrix()

    def singular_values(self):
        """The singular values of R: tensor `(units,)`, in no order."""
        return self.svd.singular_values()

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
            rank = sum(self.svd.reflectors)
            low_rank = low_rank_pays(self.units, rank, rows)
        if low_rank:
            tensors = self.svd.diagonal_plus_low_rank()
            form = DiagonalPlusLowRank
        else:
            tensors, form = (self.svd.matrix(),), Dense
        return form(*(ops.cast(t, self.compute_dtype) for t in tensors))

    def get_config(self):
        config = super().get_config()
        for key in REFUSED_RECURRENT_OPTIONS:
            del config[key]
        svd = self.svd.get_config()
        config.update({key: svd[key] for key in SPECTRAL_OPTIONS})
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
            pair `(m_u, m_v)`. Defaults to `"auto"`: 16, or `n` if that is
            less.
        sigma_center: Non-negative float. Defaults to `1.0`.
        sigma_radius: Positive float, smaller than a positive `sigma_center`.
            Defaults to `0.1`.
        sigma_mode: `"sigmoid"`, `"clip"`, `"free"` or `"fixed"`. Defaults to
            `"sigmoid"`.
        activation: Keras activation or `"modrelu"`. Defaults to `"elu"`.
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
    >>> layer = SpectralRNN(128)
    >>> tuple(layer(np.random.rand(4, 20, 1).astype("float32")).shape)
    (4, 128)
    >>> tuple(layer.singular_values().shape)
    (128,)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, section 4.
    """

    cell_arguments = ("units", *_EXPLICIT, *_CELL_OPTIONS)
    decomposed = ("recurrent kernel",)
    own_options = (*SPECTRAL_OPTIONS, "form", *FastRNN.own_options)
    refused_options = REFUSED_RECURRENT_OPTIONS

    def __init__(
        self,
        units,
        reflectors="auto",
        sigma_center=1.0,
        sigma_radius=0.1,
        sigma_mode="sigmoid",
        activation="elu",
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        **kwargs,
    ):
        cell_options = {
            key: kwargs.pop(key)
            for key in (*_CELL_OPTIONS, *REFUSED_RECURRENT_OPTIONS)
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

    svd = of_cell("svd")

    @property
    def svds(self):
        """Dict from the name of the recurrent kernel to its `SVD`."""
        return {self.decomposed[0]: self.svd}

    def singular_values(self):
        """The singular values of R: tensor `(units,)`, in no order."""
        return self.cell.singular_values()
