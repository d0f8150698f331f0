"""Orthogonal: a square matrix as a product of Householder reflectors."""

from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.linalg.factorization import reflectors_from_orthogonal
from tf_spectral.parametrizations.svd import SVD


@register_keras_serializable("tf_spectral")
class Orthogonal(SVD):
    """An orthogonal matrix: one product of reflectors, all sigma equal to 1.

    Args:
        units: Positive integer `n`, the size of the matrix.
        reflectors: Integer up to `n`, or `None` for `n` (every orthogonal
            matrix of one determinant can be reached). Defaults to `None`.
        reflector_initializer: `"gaussian"`, `"haar"` or a
            `tf_spectral.initializers.ReflectorInitializer` that needs no
            second factor. Defaults to `"haar"`.
        matrix_regularizer: Keras regularizer of the matrix. Defaults to
            `None`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras
    >>> from tf_spectral.parametrizations import Orthogonal
    >>> q = Orthogonal(4).matrix()
    >>> error = q @ keras.ops.transpose(q) - keras.ops.eye(4)
    >>> bool(keras.ops.max(keras.ops.abs(error)) < 1e-5)
    True

    Reference: Mhammedi et al., "Efficient orthogonal parametrisation of
    recurrent neural networks using Householder reflections", 2017.
    """

    def __init__(
        self,
        units,
        reflectors=None,
        reflector_initializer="haar",
        matrix_regularizer=None,
        **kwargs,
    ):
        units = checks.integer("units", units, minimum=1)
        if reflectors is None:
            reflectors = units
        reflectors = checks.integer("reflectors", reflectors, 0, units)
        super().__init__(
            (units, units),
            reflectors=(reflectors, 0),
            sigma_mode="fixed",
            reflector_initializer=reflector_initializer,
            matrix_regularizer=matrix_regularizer,
            **kwargs,
        )

    def assign_matrix(self, kernel):
        """Sets the weights so that `matrix()` is the orthogonal `kernel`.

        Args:
            kernel: Floating orthogonal matrix `(units, units)`.

        Raises:
            ValueError: If `kernel` is not orthogonal of that shape, or if the
                reflectors are too few. The weights are then as they were.
        """
        super().assign_matrix(kernel)

    def _factors(self, kernel):
        u = reflectors_from_orthogonal(ops.transpose(kernel))
        sigma = ops.ones((self.shape[0],), u.dtype)
        return u[: self.reflectors[0]], sigma, u[:0]

    def get_config(self):
        config = super().get_config()
        units, _ = config.pop("shape")
        for key in (
            "sigma_center",
            "sigma_radius",
            "sigma_mode",
            "sigma_regularizer",
            "annealed_radius",
        ):
            del config[key]
        config["reflectors"] = config["reflectors"][0]
        return {"units": units, **config}
