"""Initial orthogonal matrices: rotations of planes, and Haar measure.

A kernel acts on rows, so it is the transpose of the matrix in the papers.
"""

import math
import random

from keras import initializers
from keras import ops
from keras import random as keras_random
from keras.saving import deserialize_keras_object
from keras.saving import register_keras_serializable
from keras.saving import serialize_keras_object

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype


class _OrthogonalInitializer(initializers.Initializer):
    """Seed and determinant, and the dtype to compute in."""

    def __init__(self, determinant=None, seed=None):
        self.determinant = checks.choice(
            "determinant", determinant, (None, 1, -1)
        )
        if isinstance(seed, dict) and seed:
            seed = deserialize_keras_object(seed)
        self.seed = checks.seed("seed", seed, generator=True)
        # As in Keras, one unseeded initializer gives one set of values.
        drawn = random.randint(1, 10**9) if seed is None else self.seed
        self._drawn_seed = drawn

    def __call__(self, shape, dtype=None):
        dtype = checks.floating_dtype("dtype", dtype)
        shape = checks.shape("shape", shape)
        self.check(shape)
        matrix = self.matrix(shape, working_dtype(dtype))
        return ops.cast(ops.reshape(matrix, shape), dtype)

    def check(self, shape):
        """Raises if there is no such matrix of this shape."""
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(
                f"`{type(self).__name__}` gives square matrices. Expected "
                f"shape (d, d), Received: shape={shape}"
            )

    def matrix(self, shape, dtype):
        """The matrix, of the rows that all axes but the last make."""
        raise NotImplementedError(f"{type(self).__name__}.matrix")

    def get_config(self):
        return {
            "determinant": self.determinant,
            "seed": serialize_keras_object(self.seed),
        }


@register_keras_serializable("tf_spectral")
class BlockRotation(_OrthogonalInitializer):
    """Rotates disjoint planes, of coordinates `(2p, 2p + 1)`, all around.

    The angles are symmetric about zero and reach (nearly) half a turn, so
    the eigenvalues spread over the unit circle: a state of an RNN is carried
    around at many speeds. `Cayley` turns by at most a quarter, one way.

    Args:
        angles: `"cayley"`: `t = 2 arctan(s)` with `s` uniform in [-pi, pi],
            as in the paper, the Cayley transform of blocks
            `[[0, s], [-s, 0]]`; `|t|` is at most 144.7 degrees, large angles
            are likelier. `"uniform"`: `t` uniform in [-pi, pi], the exponential
            of such blocks. Defaults to `"cayley"`.
        determinant: `1`, `-1` (the last column is negated) or `None`, which
            leaves it 1. Defaults to `None`.
        seed: Integer, `keras.random.SeedGenerator` or `None`. Defaults to
            `None`.

    Call arguments:
        shape: Pair `(d, d)`. If `d` is odd the last diagonal entry is 1.
        dtype: Floating dtype; `None` for `keras.config.floatx()`.

    Returns:
        Tensor `(d, d)`, orthogonal.

    Raises:
        ValueError: If an argument is unknown, or if the shape is not square.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.initializers import BlockRotation
    >>> q = BlockRotation(seed=0)((4, 4))
    >>> np.allclose(q @ keras.ops.transpose(q), np.eye(4), atol=1e-6)
    True

    Reference: Henaff, Szlam and LeCun, "Recurrent orthogonal networks and
    long-memory tasks", 2016.
    """

    def __init__(self, angles="cayley", determinant=None, seed=None):
        super().__init__(determinant, seed)
        self.angles = checks.choice("angles", angles, ("cayley", "uniform"))

    def matrix(self, shape, dtype):
        planes = shape[0] // 2
        if self.angles == "uniform":
            cos, sin = _uniform_directions(planes, dtype, self._drawn_seed)
        else:
            s = keras_random.uniform(
                (planes,), -math.pi, math.pi, dtype, self._drawn_seed
            )
            cos, sin = (1 - s * s) / (1 + s * s), 2 * s / (1 + s * s)
        return _plane_rotations(cos, sin, shape[0], self.determinant)

    def get_config(self):
        return {"angles": self.angles, **super().get_config()}


@register_keras_serializable("tf_spectral")
class Cayley(_OrthogonalInitializer):
    """The Cayley transform of a skew matrix of small blocks.

    The transform `(I + A)^-1 (I - A)` of blocks `[[0, s], [-s, 0]]` with
    `s = sqrt((1 - cos u) / (1 + cos u)) = tan(u / 2)` turns the plane of each
    block by exactly `u`, here uniform in [0, pi / 2]. Against `BlockRotation`
    no plane turns by more than a quarter, all turn the same way, and all
    eigenvalues have a real part of zero or more: a state changes slowly at
    first. A layer that takes the exponential of these blocks, not their
    Cayley transform, starts with the angles `tan(u / 2)`.

    Args:
        determinant: `1`, `-1` (the last column is negated) or `None`, which
            leaves it 1. Defaults to `None`.
        seed: Integer, `keras.random.SeedGenerator` or `None`. Defaults to
            `None`.

    Call arguments:
        shape: Pair `(d, d)`. If `d` is odd the last diagonal entry is 1.
        dtype: Floating dtype; `None` for `keras.config.floatx()`.

    Returns:
        Tensor `(d, d)`, orthogonal.

    Raises:
        ValueError: If the determinant is unknown, or if the shape is not
            square.

    Example:

    >>> import keras
    >>> from tf_spectral.initializers import Cayley
    >>> q = Cayley(seed=0)((4, 4))
    >>> float(keras.ops.min(keras.ops.diagonal(q))) >= 0
    True

    Reference: Helfrich, Willmott and Ye, "Orthogonal recurrent neural
    networks with scaled Cayley transform", 2018.
    """

    def matrix(self, shape, dtype):
        planes = shape[0] // 2
        cos, sin = _uniform_directions(planes, dtype, self._drawn_seed)
        cos, sin = ops.abs(cos), ops.abs(sin)
        return _plane_rotations(cos, sin, shape[0], self.determinant)


@register_keras_serializable("tf_spectral")
class Haar(_OrthogonalInitializer):
    """Uniform on all orthogonal matrices (Haar measure), or on half of them.

    Tall shapes get orthonormal columns and wide ones orthonormal rows,
    uniform on the Stiefel manifold.

    Args:
        determinant: `1` for uniform on the rotations, `-1` for uniform on the
            others, `None` for uniform on all. Only for square matrices.
            Defaults to `None`.
        seed: Integer, `keras.random.SeedGenerator` or `None`. Defaults to
            `None`.

    Call arguments:
        shape: Tuple of two or more integers; all axes but the last count as
            rows.
        dtype: Floating dtype; `None` for `keras.config.floatx()`.

    Returns:
        Tensor of this shape.

    Raises:
        ValueError: If the determinant is unknown, if it is given and the
            matrix is not square, or if the rank is below 2.

    Example:

    >>> import keras
    >>> from tf_spectral.initializers import Haar
    >>> q = Haar(determinant=1, seed=0)((3, 3))
    >>> round(float(keras.ops.det(q)), 5)
    1.0

    Reference: Mezzadri, "How to generate random matrices from the classical
    compact groups", 2007.
    """

    def check(self, shape):
        if len(shape) < 2:
            raise ValueError(
                "Argument `shape` must have a rank of at least 2. "
                f"Received: shape={shape}"
            )
        rows = math.prod(shape[:-1])
        if self.determinant is not None and rows != shape[-1]:
            raise ValueError(
                "Argument `determinant` needs a square matrix. Expected as "
                f"many rows as columns, Received: shape={shape}"
            )

    def matrix(self, shape, dtype):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        normal = keras_random.normal(tall, dtype=dtype, seed=self._drawn_seed)
        q, r = ops.qr(normal)
        # Without the signs the choice of the factorization would show.
        q = q * _sign(ops.diagonal(r))
        if self.determinant is not None:
            q = _negate_last(q, ops.slogdet(q)[0] * self.determinant)
        return q if rows >= columns else ops.transpose(q)


_BY_NAME = {"block_rotation": BlockRotation, "cayley": Cayley, "haar": Haar}


def get_orthogonal_initializer(identifier, name="identifier"):
    """One of the above from its name, or what Keras makes of it.

    Args:
        identifier: Name, configuration, initializer or `None`.
        name: String, the argument, for errors. Defaults to `"identifier"`.

    Example:

    >>> from tf_spectral.initializers import get_orthogonal_initializer
    >>> type(get_orthogonal_initializer("cayley")).__name__
    'Cayley'
    """
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    return checks.initializer(name, identifier, known=_BY_NAME)


def _uniform_directions(count, dtype, seed):
    """Cosines and sines of uniform angles.

    From normal variables: Keras' cosine rounds float64 to float32 on JAX.
    """
    x = keras_random.normal((2, count), dtype=dtype, seed=seed)
    x = x / ops.sqrt(ops.sum(x * x, axis=0))
    return x[0], x[1]


def _plane_rotations(cos, sin, d, determinant):
    """Blocks `[[cos, sin], [-sin, cos]]`, the transpose of the papers'."""
    odd = [[0, d % 2]]
    diagonal = ops.pad(ops.repeat(cos, 2), odd, constant_values=1.0)
    above = ops.reshape(ops.stack([sin, ops.zeros_like(sin)], axis=1), (-1,))
    above = ops.pad(above, odd)[:, None]
    identity = ops.eye(d, dtype=cos.dtype)
    upper = ops.eye(d, k=1, dtype=cos.dtype) * above
    q = identity * diagonal[:, None] + upper - ops.transpose(upper)
    if determinant == -1:
        q = _negate_last(q, -ops.ones((), q.dtype))
    return q


def _negate_last(q, sign):
    """The last column times a sign."""
    return ops.concatenate([q[:, :-1], q[:, -1:] * sign], axis=1)


def _sign(x):
    one = ops.ones_like(x)
    return ops.where(x < 0, -one, one)
