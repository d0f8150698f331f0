"""SVD: a matrix by its singular value decomposition, kept as such."""

import numpy as np
from keras import layers
from keras import ops
from keras import regularizers
from keras.saving import register_keras_serializable
from keras.saving import serialize_keras_object

from tf_spectral import checks
from tf_spectral import initializers
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.linalg.factorization import check_reflectors
from tf_spectral.linalg.spectral import diagonal_plus_low_rank
from tf_spectral.linalg.spectral import spectral_matrix
from tf_spectral.linalg.triangular import upper_triangle
from tf_spectral.parametrizations import singular_values as sv
from tf_spectral.parametrizations.annealing import Annealable
from tf_spectral.parametrizations.annealing import check_annealed
from tf_spectral.parametrizations.assignment import Assignable
from tf_spectral.parametrizations.by_products import ByProducts


@register_keras_serializable("tf_spectral")
class SVD(Annealable, Assignable, ByProducts, layers.Layer):
    """A matrix `V diag(sigma) U^T` with U and V products of reflectors.

    The transpose is the paper's `W = U diag(sigma) V^T`. The singular values
    are the entries of `sigma` and stay where `sigma_mode` puts them, whatever
    an optimizer does to the weights.

    Args:
        shape: Pair of positive integers `(n_in, n_out)`.
        reflectors: `None` for `min(n_in, n_out)` on both sides (any matrix
            with singular values within the bounds can be reached), an
            integer, or a pair `(m_u, m_v)`. Defaults to `None`.
        sigma_center: Non-negative float `c`, the middle and the start of the
            singular values. Defaults to `1.0`.
        sigma_radius: Positive float `r`, smaller than a positive
            `sigma_center`. Defaults to `0.01`.
        sigma_mode: `"sigmoid"` (inside [c-r, c+r] by `c + 2r (sigmoid(s) -
            1/2)`), `"clip"` (projected to [c-r, c+r] after each update),
            `"free"` (entries may even turn negative: the singular values are
            their sizes) or `"fixed"` (always c). Defaults to `"sigmoid"`.
        reflector_initializer: `"gaussian"`, `"haar"`, `"identity"`,
            `"rotation"` or a `tf_spectral.initializers.ReflectorInitializer`.
            Its `reflector_scale` sets how fast reflectors turn. Defaults to
            `"gaussian"`.
        sigma_regularizer: Keras regularizer of `sigma` itself (not of the
            weight behind it). Defaults to `None`.
        matrix_regularizer: Keras regularizer of the matrix. Defaults to
            `None`.
        annealed_radius: Boolean, whether the radius can change during
            training, by `set_radius` or
            `tf_spectral.callbacks.SigmaRadiusSchedule`. It is then a weight,
            which is not trained, and starts from `sigma_radius`; the weight
            of sigma is in units of it, so that in the mode `"clip"` an update
            moves sigma by as much less as the radius is smaller than 1.
            Defaults to `False`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from tf_spectral.parametrizations import SVD
    >>> svd = SVD((3, 2), reflectors=2, sigma_center=1.0, sigma_radius=0.1)
    >>> tuple(svd.matrix().shape)
    (3, 2)

    Reference: Zhang et al., "Stabilizing Gradients for Deep Neural Networks
    via Efficient SVD Parameterization", 2018, sections 3 to 5.
    """

    def __init__(
        self,
        shape,
        reflectors=None,
        sigma_center=1.0,
        sigma_radius=0.01,
        sigma_mode="sigmoid",
        reflector_initializer="gaussian",
        sigma_regularizer=None,
        matrix_regularizer=None,
        annealed_radius=False,
        **kwargs,
    ):
        shape = checks.shape("shape", shape, rank=2)
        sigma = sv.check_sigma(sigma_mode, sigma_center, sigma_radius)
        annealed_radius = checks.boolean("annealed_radius", annealed_radius)
        check_annealed(annealed_radius, sigma_mode)
        sigma_regularizer = checks.regularizer(
            "sigma_regularizer", sigma_regularizer
        )
        matrix_regularizer = checks.regularizer(
            "matrix_regularizer", matrix_regularizer
        )
        super().__init__(**checks.layer_options(kwargs))
        self.shape = shape
        self.reflectors = check_reflectors(reflectors, *self.shape)
        self.sigma_mode, self.sigma_center, self.sigma_radius = sigma
        self.annealed_radius = annealed_radius
        self.reflector_initializer = initializers.get_reflector_initializer(
            reflector_initializer, "reflector_initializer"
        )
        (n_in, n_out), (m_u, m_v) = self.shape, self.reflectors
        self.reflector_initializer.check((m_u, n_out), (m_v, n_in))
        self.sigma_regularizer = sigma_regularizer
        self.matrix_regularizer = matrix_regularizer
        check_penalties(
            m_u,
            sigma_mode,
            sigma_regularizer=self.sigma_regularizer,
            matrix_regularizer=self.matrix_regularizer,
        )

    def build(self, input_shape=None):
        (n_in, n_out), (m_u, m_v) = self.shape, self.reflectors
        u, v = self.reflector_initializer((m_u, n_out), (m_v, n_in))
        self._u = self._add_weight("u_reflectors", u) if m_u else None
        self._v = self._add_weight("v_reflectors", v) if m_v else None
        self._sigma = self._radius = None
        if self.sigma_mode != "fixed":
            sigmoid = self.sigma_mode == "sigmoid"
            start = 0.0 if sigmoid else self._weight_bounds()[0]
            self._sigma = self._add_weight(
                "sigma_logits" if sigmoid else "sigma",
                np.full(min(self.shape), start),
                constraint=self._sigma_constraint(),
            )
        if self.annealed_radius:
            self._radius = self._add_weight(
                "sigma_radius", np.asarray(self.sigma_radius), trainable=False
            )
        self._attach_regularizers()
        self.built = True

    def u_vectors(self):
        """Packed reflectors of U: tensor `(m_u, n_out)`."""
        self._ensure_built()
        return self._packed(self._u, self.shape[1])

    def v_vectors(self):
        """Packed reflectors of V: tensor `(m_v, n_in)`."""
        self._ensure_built()
        return self._packed(self._v, self.shape[0])

    def sigma(self):
        """The diagonal: tensor `(min(n_in, n_out),)`."""
        self._ensure_built()
        if self._sigma is None:
            return ops.full(
                (min(self.shape),), self.sigma_center, self._weight_dtype
            )
        return self._sigma_from_weight(ops.convert_to_tensor(self._sigma))

    def matrix(self):
        """The matrix: tensor `(n_in, n_out)`, in float32 or float64."""
        return spectral_matrix(self.u_vectors(), self.sigma(), self.v_vectors())

    def diagonal_plus_low_rank(self):
        """Tensors `(sigma, P, R)` with `matrix = diag(sigma) - P R^T`.

        `sigma` has shape `(min(n_in, n_out),)` and is padded by zeros to the
        shape of the matrix; `P` is `(n_in, m_v + m_u)` and `R`
        `(n_out, m_v + m_u)`.
        """
        sigma = self.sigma()
        p, r = diagonal_plus_low_rank(self.u_vectors(), sigma, self.v_vectors())
        return sigma, p, r

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "reflectors": self.reflectors,
            "sigma_center": self.sigma_center,
            "sigma_radius": self.sigma_radius,
            "sigma_mode": self.sigma_mode,
            "reflector_initializer": serialize_keras_object(
                self.reflector_initializer
            ),
            "sigma_regularizer": regularizers.serialize(self.sigma_regularizer),
            "matrix_regularizer": regularizers.serialize(
                self.matrix_regularizer
            ),
            "annealed_radius": self.annealed_radius,
        }

    def _ensure_built(self):
        if not self.built:
            self.build()

    @property
    def _weight_dtype(self):
        return working_dtype(self.variable_dtype)

    def _add_weight(self, name, value, constraint=None, trainable=True):
        return self.add_weight(
            name=name,
            shape=value.shape,
            initializer=lambda shape, dtype=None: ops.cast(value, dtype),
            dtype=self._weight_dtype,
            autocast=False,
            trainable=trainable,
            constraint=constraint,
        )

    def _sigma_constraint(self):
        if self.sigma_mode != "clip":
            return None
        center, radius = self._weight_bounds()
        return sv.Interval(center - radius, center + radius)

    def _packed(self, variable, width):
        if variable is None:
            return ops.zeros((0, width), dtype=self._weight_dtype)
        return upper_triangle(ops.convert_to_tensor(variable))

    def _attach_regularizers(self):
        penalties = (
            (self._sigma, self.sigma_regularizer, self.sigma),
            (self._u, self.matrix_regularizer, self.matrix),
        )
        for variable, regularizer, value in penalties:
            if regularizer is not None:
                variable.regularizer = _Penalty(regularizer, value)


def check_penalties(m_u, sigma_mode, sigma_regularizer, **of_matrix):
    """Raises where a regularizer has no weight to be attached to.

    Args:
        m_u: Integer, the number of reflectors of U.
        sigma_mode: String.
        sigma_regularizer: Keras regularizer or `None`.
        **of_matrix: The regularizer of the matrix, by its name for a user.
    """
    if sigma_regularizer and sigma_mode == "fixed":
        raise ValueError(
            "Argument `sigma_regularizer` has nothing to act on. Expected "
            "None with sigma_mode='fixed', Received: "
            f"sigma_regularizer={sigma_regularizer}"
        )
    for name, regularizer in of_matrix.items():
        if regularizer and not m_u:
            raise ValueError(
                f"Argument `{name}` needs at least one reflector in U. "
                f"Expected None with m_u=0, Received: {name}={regularizer}"
            )


class _Penalty(regularizers.Regularizer):
    """Regularizer of what a weight stands for, in place of the weight."""

    def __init__(self, regularizer, value):
        self.regularizer, self.value = regularizer, value

    def __call__(self, weight):
        return self.regularizer(self.value())
