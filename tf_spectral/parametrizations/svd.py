"""SVD: a matrix by its singular value decomposition, kept as such."""

import numpy as np
from keras import layers
from keras import ops
from keras import regularizers
from keras.saving import register_keras_serializable
from keras.saving import serialize_keras_object

from tf_spectral import checks
from tf_spectral import initializers
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_rank
from tf_spectral.linalg.factorization import check_reflectors
from tf_spectral.linalg.factorization import svd_factors_from_matrix
from tf_spectral.linalg.householder import upper_triangle
from tf_spectral.linalg.spectral import diagonal_plus_low_rank
from tf_spectral.linalg.spectral import solve_spectral
from tf_spectral.linalg.spectral import spectral_matrix
from tf_spectral.linalg.spectral import truncated_sigma
from tf_spectral.parametrizations import singular_values as sv


@register_keras_serializable("tf_spectral")
class SVD(layers.Layer):
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
        """Tensors `(sigma, P, Q)` with `matrix = diag(sigma) - P Q^T`.

        `sigma` has shape `(min(n_in, n_out),)` and is padded by zeros to the
        shape of the matrix; `P` is `(n_in, m_v + m_u)` and `Q`
        `(n_out, m_v + m_u)`.
        """
        sigma = self.sigma()
        p, q = diagonal_plus_low_rank(self.u_vectors(), sigma, self.v_vectors())
        return sigma, p, q

    def singular_values(self):
        """The singular values of the matrix, in no order."""
        return ops.abs(self.sigma())

    def condition_number(self):
        """The largest singular value divided by the smallest: a scalar.

        Infinite where the smallest is zero.
        """
        sigma = self.singular_values()
        least = ops.min(sigma)
        ratio = ops.max(sigma) / ops.where(least > 0, least, 1.0)
        return ops.where(least > 0, ratio, np.inf)

    def log_abs_det(self):
        """`log |det matrix|`, a scalar: the sum of the logs of sigma.

        Raises:
            ValueError: If the matrix is not square.
        """
        self._check_square("log_abs_det")
        return ops.sum(ops.log(self.singular_values()))

    def solve(self, y):
        """Rows `x` with `x matrix = y`, through reflectors alone.

        Nothing is factored or inverted but sigma: the error is that of
        rounding times at most the condition number. Where sigma has a zero,
        the result is not finite.

        Args:
            y: Floating tensor `(..., n)`.

        Returns:
            Tensor of the shape and dtype of `y`.

        Raises:
            ValueError: If the matrix is not square, or if `y` does not fit.
        """
        self._check_square("solve")
        return solve_spectral(
            y, self.u_vectors(), self.sigma(), self.v_vectors()
        )

    def truncated_matrix(self, rank):
        """The matrix of that rank which is nearest to the matrix.

        Args:
            rank: Integer from 0 to `min(n_in, n_out)`, how many of the
                largest singular values to keep.

        Returns:
            Tensor `(n_in, n_out)`.

        Raises:
            ValueError: If `rank` is out of range.

        Reference: Eckart and Young, 1936.
        """
        sigma = truncated_sigma(self.sigma(), rank)
        return spectral_matrix(self.u_vectors(), sigma, self.v_vectors())

    def radius(self):
        """The radius of now: a scalar tensor if it is a weight, or a float.

        `sigma_radius` is the one that was given to the constructor.
        """
        if not self.annealed_radius:
            return self.sigma_radius
        self._ensure_built()
        return ops.convert_to_tensor(self._radius)

    def set_radius(self, radius):
        """Moves the bounds of the singular values.

        Values inside the new bounds stay as they are, to rounding. The others
        are put at the nearest bound, in the mode `"sigmoid"` a hundredth of
        the radius inside of it, as at the bound it has no slope left. What an
        optimizer remembers of them (moments) stays as it is. Not to be called
        inside a compiled function.

        Args:
            radius: Positive float, smaller than a positive `sigma_center`.

        Raises:
            ValueError: If `radius` is out of range, or if the radius is no
                weight (`annealed_radius=False`). Nothing has changed then.
        """
        if not self.annealed_radius:
            raise ValueError(
                "The radius is a constant. Expected an `SVD` with "
                "annealed_radius=True, Received: annealed_radius=False"
            )
        radius = sv.check_sigma(self.sigma_mode, self.sigma_center, radius)[2]
        self._ensure_built()
        before = self._bounds()[2]
        self._radius.assign(radius)
        after = self._bounds()[2]
        if after == before:
            return
        raw = ops.convert_to_numpy(self._sigma).astype("float64")
        sigmoid = self.sigma_mode == "sigmoid"
        units = (np.tanh(raw / 2) if sigmoid else raw) * (before / after)
        edge = sv.INSIDE if sigmoid else 1.0
        units = np.where(np.abs(units) > 1, np.sign(units) * edge, units)
        raw = sv.weight_from_sigma(units, self.sigma_mode, 0.0, 1.0)
        self._sigma.assign(ops.cast(raw, self._sigma.dtype))

    def assign_matrix(self, kernel, exact=True):
        """Sets the weights so that `matrix()` is `kernel`, or close to it.

        With fewer than `min(n_in, n_out)` reflectors in U or V their first
        singular triplets are those of `kernel` and `sigma` is fitted to the
        rest by least squares.

        Args:
            kernel: Floating matrix `(n_in, n_out)`.
            exact: Boolean. `False` takes the fit that the reflectors and the
                bounds of sigma allow, and moves singular values outside of
                the bounds to the nearest one inside. Defaults to `True`.

        Returns:
            Float, the residual `||kernel - matrix()||_F / ||kernel||_F`, not
            divided for a kernel of zeros.

        Raises:
            ValueError: If the shape differs; with `exact=True` also if a
                singular value lies outside of the bounds (the message says
                which would do), or if the reflectors are too few (the message
                gives the residual). The weights are then as they were.

        Reference: Zhang et al., 2018, Theorems 2 and 4.
        """
        exact = checks.boolean("exact", exact)
        kernel = self._checked_kernel(kernel)
        u, sigma, v = self._factors(kernel)
        if not exact:
            sigma = ops.cast(sv.nearest_sigma(sigma, *self._bounds()), v.dtype)
        residual = relative_residual(kernel, spectral_matrix(u, sigma, v))
        if exact and not residual <= 1e-4:
            raise ValueError(
                "No matrix with so few reflectors is this one. Expected more "
                "of them (`None` for all), or `exact=False` to match the first "
                "singular triplets and fit the rest, Received: a relative "
                f"residual of {residual:.3g} with "
                f"reflectors={self.reflectors}"
            )
        raw = self._weight_from_sigma(sigma)
        self._ensure_built()
        rescale = self.reflector_initializer.rescale
        for variable, value in (
            (self._u, rescale(ops.convert_to_numpy(u))),
            (self._v, rescale(ops.convert_to_numpy(v))),
            (self._sigma, raw),
        ):
            if variable is not None:
                variable.assign(ops.cast(value, variable.dtype))
        return residual

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

    def _check_square(self, name):
        n_in, n_out = self.shape
        if n_in != n_out:
            raise ValueError(
                f"`{name}` needs a square matrix. Received: shape={self.shape}"
            )

    def _bounds(self):
        """Mode, center and radius of now; of numbers, not of tensors."""
        radius = self.sigma_radius
        if self.annealed_radius and self.built:
            radius = float(ops.convert_to_numpy(self._radius))
        return self.sigma_mode, self.sigma_center, radius

    # With `annealed_radius` the radius is a weight that no optimizer sees, and
    # the weight of sigma stands for `(sigma - sigma_center) / radius`, between
    # -1 and 1: no constant in a compiled function, nor in the constraint of
    # that weight, depends on the radius.

    def _weight_bounds(self):
        """The center and the radius of what the weight of sigma holds."""
        if self.annealed_radius:
            return 0.0, 1.0
        return self.sigma_center, self.sigma_radius

    def _weight_from_sigma(self, sigma):
        """The raw weight (NumPy) of singular values; raises as `sv` does."""
        mode, center, radius = self._bounds()
        raw = sv.weight_from_sigma(sigma, mode, center, radius)
        if not self.annealed_radius:
            return raw
        # What rounding has put outside goes to the bound itself.
        sigma = sv.nearest_sigma(sigma, "clip", center, radius)
        return sv.weight_from_sigma((sigma - center) / radius, mode, 0.0, 1.0)

    def _sigma_from_weight(self, weight):
        center, radius = self._weight_bounds()
        sigma = sv.sigma_from_weight(weight, self.sigma_mode, center, radius)
        if not self.annealed_radius:
            return sigma
        return self.sigma_center + self.radius() * sigma

    def _factors(self, kernel):
        return svd_factors_from_matrix(kernel, self.reflectors)

    def _checked_kernel(self, kernel):
        kernel = checks.tensor("kernel", kernel)
        if tuple(kernel.shape) != self.shape:
            raise ValueError(
                "Argument `kernel` has the wrong shape. Expected "
                f"{self.shape}, Received: kernel.shape={tuple(kernel.shape)}"
            )
        return ops.cast(check_rank("kernel", kernel, 2), self._weight_dtype)


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


def check_annealed(annealed_radius, sigma_mode):
    """Raises where a radius that can change would bound nothing."""
    if annealed_radius and sigma_mode not in ("sigmoid", "clip"):
        raise ValueError(
            "Argument `annealed_radius` has no bounds to act on. Expected "
            "False unless sigma_mode is 'sigmoid' or 'clip', Received: "
            f"annealed_radius={annealed_radius}, sigma_mode={sigma_mode}"
        )


def relative_residual(kernel, matrix):
    """`||kernel - matrix||_F / ||kernel||_F`, as a float."""
    kernel, matrix = (
        ops.convert_to_numpy(t).astype("float64") for t in (kernel, matrix)
    )
    size = np.linalg.norm(kernel)
    return float(np.linalg.norm(kernel - matrix) / (size if size else 1.0))


class _Penalty(regularizers.Regularizer):
    """Regularizer of what a weight stands for, in place of the weight."""

    def __init__(self, regularizer, value):
        self.regularizer, self.value = regularizer, value

    def __call__(self, weight):
        return self.regularizer(self.value())
