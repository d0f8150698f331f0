"""Initial reflectors: where an orthogonal factor starts, and how it learns.

A reflector `H(u)` does not change when `u` is scaled, so under Adam or
RMSprop, whose steps do not depend on the size of the gradient, the length of
`u` is its learning rate: each update turns `u` by about
`learning_rate / reflector_scale` radians, where `reflector_scale` is the root
mean square of the entries that `u` starts with. Under plain SGD the angle is
`learning_rate / reflector_scale^2` times the gradient at unit length.
"""

import contextlib
import random

import numpy as np
from keras import initializers
from keras.saving import deserialize_keras_object
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral.linalg.factorization import vector_to_axis


class ReflectorInitializer(initializers.Initializer):
    """Base of the initialisers of the packed reflectors of U and V.

    Args:
        reflector_scale: Positive float, the root mean square of the entries
            of each reflector. Larger values make reflectors turn more slowly
            under Adam and RMSprop. Defaults to `1.0`.
        seed: Integer or `None`. Defaults to `None`.

    Call arguments:
        u_shape: Pair `(m_u, n_out)`.
        v_shape: Pair `(m_v, n_in)`.

    Returns:
        Pair of float64 NumPy arrays of these shapes, packed: row `i` is zero
        in its first `i` entries.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.initializers import ReflectorInitializer
    >>> class Alternating(ReflectorInitializer):
    ...     def directions(self, u_shape, v_shape, rng):
    ...         rows = np.triu(rng.choice([-1.0, 1.0], u_shape))
    ...         return rows, np.triu(rng.choice([-1.0, 1.0], v_shape))
    >>> u, v = Alternating(reflector_scale=0.5)((2, 3), (1, 3))
    >>> np.abs(u).round(4).tolist()
    [[0.5, 0.5, 0.5], [0.0, 0.5, 0.5]]
    """

    def __init__(self, reflector_scale=1.0, seed=None):
        self.reflector_scale = checks.positive(
            "reflector_scale", reflector_scale, checks.SQUARABLE
        )
        self.seed = checks.seed("seed", seed)
        # As in Keras, one unseeded initialiser gives one set of values.
        drawn = random.randint(1, 10**9) if seed is None else self.seed
        self._drawn_seed = drawn

    def __call__(self, u_shape, v_shape):
        u_shape = checks.shape("u_shape", u_shape, rank=2, minimum=0)
        v_shape = checks.shape("v_shape", v_shape, rank=2, minimum=0)
        self.check(u_shape, v_shape)
        rng = np.random.default_rng(self._drawn_seed)
        u, v = self.directions(u_shape, v_shape, rng)
        return self.rescale(u), self.rescale(v)

    def for_part(self, place):
        """The same initialiser with values of its own, for one of several.

        Args:
            place: Integer, which of the matrices it is for; 0 is itself.
        """
        if place == 0:
            return self
        other = type(self).from_config(self.get_config())
        if self.seed is not None:
            other.seed = (self.seed + place) % checks.SEEDS
            other._drawn_seed = other.seed
        return other

    def check(self, u_shape, v_shape):
        """Raises if there is no such matrix of these shapes."""

    def directions(self, u_shape, v_shape, rng):
        """Packed reflectors, of any length, of this initialiser's matrix."""
        raise NotImplementedError(f"{type(self).__name__}.directions")

    def rescale(self, rows):
        """The rows with entries of root mean square `reflector_scale`."""
        length = np.sqrt(rows.shape[1] - np.arange(len(rows)))[:, None]
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        norm = np.where(norm > 0, norm, 1.0)
        return self.reflector_scale * length * rows / norm

    def get_config(self):
        return {"reflector_scale": self.reflector_scale, "seed": self.seed}


@register_keras_serializable("tf_spectral")
class GaussianReflectors(ReflectorInitializer):
    """Independent normal entries: the default.

    Fast to learn and easy, but the product is not Haar distributed.

    Args:
        reflector_scale: Positive float. Defaults to `1.0`.
        seed: Integer or `None`. Defaults to `None`.

    Example:

    >>> from tf_spectral.initializers import GaussianReflectors
    >>> u, v = GaussianReflectors(reflector_scale=0.1, seed=0)((2, 8), (2, 8))
    >>> u.shape
    (2, 8)
    >>> round(float((u[0] ** 2).mean() ** 0.5), 4)
    0.1
    """

    def directions(self, u_shape, v_shape, rng):
        return _packed_normal(u_shape, rng), _packed_normal(v_shape, rng)


@register_keras_serializable("tf_spectral")
class HaarReflectors(ReflectorInitializer):
    """First columns of U and V uniform on the orthogonal group (Haar).

    With as many reflectors as columns the last row is zero half of the time:
    it holds the sign of the determinant and has no continuous parameter.

    Args:
        reflector_scale: Positive float. Defaults to `1.0`.
        seed: Integer or `None`. Defaults to `None`.

    Example:

    >>> from tf_spectral.initializers import HaarReflectors
    >>> from tf_spectral.parametrizations import SVD
    >>> svd = SVD((4, 4), reflector_initializer=HaarReflectors(seed=0))
    >>> tuple(svd.matrix().shape)
    (4, 4)

    Reference: Stewart, "The efficient generation of random orthogonal
    matrices", 1980.
    """

    def directions(self, u_shape, v_shape, rng):
        factors = _packed_normal(u_shape, rng), _packed_normal(v_shape, rng)
        for rows in factors:
            for i, row in enumerate(rows):
                row[i:] = vector_to_axis(row[i:])
        return factors


@register_keras_serializable("tf_spectral")
class IdentityReflectors(ReflectorInitializer):
    """U = V random: the matrix is the identity and every reflector learns.

    Needs a square matrix and as many reflectors in U as in V.

    Args:
        reflector_scale: Positive float. Defaults to `1.0`.
        seed: Integer or `None`. Defaults to `None`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.initializers import IdentityReflectors
    >>> from tf_spectral.parametrizations import SVD
    >>> svd = SVD((4, 4), 2, reflector_initializer=IdentityReflectors(seed=0))
    >>> matrix = keras.ops.convert_to_numpy(svd.matrix())
    >>> np.allclose(matrix, np.eye(4), atol=1e-6)
    True
    """

    def check(self, u_shape, v_shape):
        _check_equal_shapes(self, u_shape, v_shape)

    def directions(self, u_shape, v_shape, rng):
        rows = _packed_normal(u_shape, rng)
        return rows, rows.copy()


@register_keras_serializable("tf_spectral")
class RotationReflectors(ReflectorInitializer):
    """Plane rotations by random angles, in disjoint pairs of coordinates.

    The first `min(m, n // 2)` pairs are rotated; the identity is left on the
    rest. Needs a square matrix and as many reflectors in U as in V.

    Args:
        angles: `"uniform"` for angles uniform in [-pi, pi], or `"cayley"` for
            `2 arctan(s)`, `s` uniform in [-pi, pi] (Henaff et al., 2016, by
            the Cayley transform). Defaults to `"uniform"`.
        reflector_scale: Positive float. Defaults to `1.0`.
        seed: Integer or `None`. Defaults to `None`.

    Example:

    >>> from tf_spectral.initializers import RotationReflectors
    >>> from tf_spectral.layers import SpectralRNN
    >>> layer = SpectralRNN(
    ...     8, reflectors=4, reflector_initializer=RotationReflectors("cayley")
    ... )
    """

    def __init__(self, angles="uniform", reflector_scale=1.0, seed=None):
        super().__init__(reflector_scale, seed)
        self.angles = checks.choice("angles", angles, ("uniform", "cayley"))

    def check(self, u_shape, v_shape):
        _check_equal_shapes(self, u_shape, v_shape)

    def directions(self, u_shape, v_shape, rng):
        u = _packed_normal(u_shape, rng)
        v = u.copy()
        planes = min(u_shape[0], u_shape[1] // 2)
        theta = rng.uniform(-np.pi, np.pi, planes)
        if self.angles == "cayley":
            theta = 2 * np.arctan(theta)
        start = rng.uniform(-np.pi, np.pi, planes)
        for p in range(planes):
            u[p], v[p] = 0.0, 0.0
            pair = slice(2 * p, 2 * p + 2)
            u[p, pair] = _direction(start[p] + theta[p] / 2)
            v[p, pair] = _direction(start[p])
        return u, v

    def get_config(self):
        return {"angles": self.angles, **super().get_config()}


_BY_NAME = {
    "gaussian": GaussianReflectors,
    "haar": HaarReflectors,
    "identity": IdentityReflectors,
    "rotation": RotationReflectors,
}


def get_reflector_initializer(identifier, name="identifier"):
    """A `ReflectorInitializer` from its name, configuration or itself.

    Args:
        identifier: Name, configuration or `ReflectorInitializer`.
        name: String, the argument, for errors. Defaults to `"identifier"`.

    Example:

    >>> from tf_spectral.initializers import get_reflector_initializer
    >>> type(get_reflector_initializer("haar")).__name__
    'HaarReflectors'
    """
    initializer = identifier
    if isinstance(identifier, dict):
        with contextlib.suppress(Exception):
            initializer = deserialize_keras_object(identifier)
    elif isinstance(identifier, str) and identifier in _BY_NAME:
        initializer = _BY_NAME[identifier]()
    if isinstance(initializer, ReflectorInitializer):
        return initializer
    raise ValueError(
        f"Argument `{name}` is unknown. Expected one of "
        f"{sorted(_BY_NAME)} or an instance of `ReflectorInitializer`, "
        f"Received: {name}={checks.shown(identifier)}"
    )


def _packed_normal(shape, rng):
    return np.triu(rng.normal(size=shape))


def _direction(angle):
    return np.cos(angle), np.sin(angle)


def _check_equal_shapes(initializer, u_shape, v_shape):
    if u_shape != v_shape:
        raise ValueError(
            "Argument `reflector_initializer` needs a square matrix and as "
            "many reflectors in U as in V. Received: reflector_initializer="
            f"{type(initializer).__name__}, U {u_shape}, V {v_shape}"
        )
