"""SpectralRNNCell: one step of an RNN whose singular values are bounded."""

from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.layers.fast_cell import FastRNNCell
from tf_spectral.layers.transitions import Dense
from tf_spectral.layers.transitions import DiagonalPlusLowRank
from tf_spectral.layers.transitions import low_rank_pays
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
        for name in ("recurrent_initializer", "recurrent_constraint"):
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
        for key in ("recurrent_initializer", "recurrent_constraint"):
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
