"""Plane rotations of the rows of a matrix.

A rotation of rows `j` and `l` by `phi` is

    r_j <- cos(phi) r_j - sin(phi) r_l,   r_l <- sin(phi) r_j + cos(phi) r_l.

In `float32` the cosine of a small angle is one, and rows would grow by
`sqrt(1 + phi^2)` every time. So a rotation subtracts `s r_l + v r_j` and
`v r_l - s r_j`, where `s = sin(phi)` and `v = 1 - cos(phi) = 2 sin^2(phi/2)`
(math 3.1).
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.checks import check_alike
from tf_spectral.checks import check_indices
from tf_spectral.checks import check_rank


def rotation_increments(rows_j, rows_l, angles):
    """What a rotation of pairs of rows subtracts from them.

    For an optimizer that changes its variable in place.

    Args:
        rows_j: Floating tensor `(k, d)`, the first row of each pair.
        rows_l: Floating tensor `(k, d)`, the second row of each pair.
        angles: Floating tensor `(k,)`.

    Returns:
        Tuple `(delta_j, delta_l)` of tensors `(k, d)`: the rotated rows are
        `rows_j - delta_j` and `rows_l - delta_l`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.linalg.givens import rotation_increments
    >>> j, l = rotation_increments([[1.0, 0.0]], [[0.0, 1.0]], [3.1415927])
    >>> np.allclose(keras.ops.convert_to_numpy(j), [[2.0, 0.0]], atol=1e-5)
    True
    """
    rows_j, rows_l = check_alike("rows_j", rows_j, "rows_l", rows_l)
    angles = ops.cast(check_rank("angles", angles, 1), rows_j.dtype)
    if angles.shape[0] != rows_j.shape[0]:
        raise ValueError(
            "Argument `angles` must have one entry for each row. Expected "
            f"angles.shape=({rows_j.shape[0]},), "
            f"Received: angles.shape={tuple(angles.shape)}"
        )
    s, v = _sine_and_versine(angles)
    return s * rows_l + v * rows_j, v * rows_l - s * rows_j


def rotate_rows(r, pairs, angles):
    """A matrix with disjoint pairs of its rows rotated.

    One gather and one scatter of `2 k` rows. For pairs that take up most of
    the rows `rotate_block` is faster.

    Args:
        r: Floating tensor `(d, n)`.
        pairs: Integer tensor `(k, 2)`, no row in two pairs. The first row of
            a pair is `j`.
        angles: Floating tensor `(k,)`. The step of length `rate` against the
            gradient is `-rate / 2 * S_jl`, with `S` of `skew_gradient`.

    Returns:
        Tensor of the shape and dtype of `r`. Half precision is computed in
        `float32`.

    Raises:
        ValueError: If `r` is not a floating matrix, `pairs` not `(k, 2)`, or
            `angles` not a floating `(k,)`.

    Example:

    >>> from tf_spectral.linalg.givens import rotate_rows
    >>> r = rotate_rows([[1.0, 0.0], [0.0, 1.0]], [[0, 1]], [0.5])
    >>> [round(float(entry), 4) for entry in r[0]]
    [0.8776, -0.4794]

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022, equation 13 (its angle is
    `theta / sqrt(2)`), transposed.
    """
    r, angles = check_rank("r", r, 2), check_rank("angles", angles, 1)
    pairs = check_pairs(pairs)
    k = pairs.shape[0]
    if angles.shape[0] != k:
        raise ValueError(
            "Argument `angles` must have one entry for each pair. Expected "
            f"angles.shape=({k},), Received: angles.shape={tuple(angles.shape)}"
        )
    if k == 0:
        return r
    dtype = backend.standardize_dtype(r.dtype)
    r = ops.cast(r, working_dtype(dtype))
    rows_j = ops.take(r, pairs[:, 0], axis=0)
    rows_l = ops.take(r, pairs[:, 1], axis=0)
    delta_j, delta_l = rotation_increments(rows_j, rows_l, angles)
    indices = ops.concatenate([pairs[:, 0], pairs[:, 1]])[:, None]
    rows = ops.concatenate([rows_j - delta_j, rows_l - delta_l])
    return ops.cast(ops.scatter_update(r, indices, rows), dtype)


def rotate_block(r, partner, angles):
    """A matrix with every row rotated against its partner.

    One gather of all rows, no scatter.

    Args:
        r: Floating tensor `(d, n)`.
        partner: Integer tensor `(d,)`, a permutation that is its own inverse:
            row `i` is paired with row `partner[i]`, or idle if that is `i`.
        angles: Floating tensor `(d,)`: row `i` becomes
            `cos(angles[i]) r_i - sin(angles[i]) r_partner[i]`. So partners
            have opposite angles, and idle rows zero.

    Returns:
        Tensor of the shape and dtype of `r`. Half precision is computed in
        `float32`.

    Raises:
        ValueError: If `r` is not a floating matrix, or another argument not
            of shape `(d,)`.

    Example:

    >>> from tf_spectral.linalg.givens import rotate_block
    >>> r = rotate_block([[1.0, 0.0], [0.0, 1.0]], [1, 0], [0.5, -0.5])
    >>> [round(float(entry), 4) for entry in r[0]]
    [0.8776, -0.4794]
    """
    r, angles = check_rank("r", r, 2), check_rank("angles", angles, 1)
    partner = check_indices("partner", partner, r.shape[0])
    d = r.shape[0]
    for name, value in (("partner", partner), ("angles", angles)):
        if tuple(value.shape) != (d,):
            raise ValueError(
                f"Argument `{name}` must have one entry for each row. Expected "
                f"shape ({d},), Received: {name}.shape={tuple(value.shape)}"
            )
    dtype = backend.standardize_dtype(r.dtype)
    r = ops.cast(r, working_dtype(dtype))
    s, v = _sine_and_versine(ops.cast(angles, r.dtype))
    return ops.cast(r - (s * ops.take(r, partner, axis=0) + v * r), dtype)


def partners(pairs, d):
    """Disjoint pairs as a permutation, for `rotate_block`.

    Args:
        pairs: Integer tensor `(k, 2)`, no row in two pairs.
        d: Integer, the number of rows.

    Returns:
        Integer tensor `(d,)`: the partner of each row, itself if idle.

    Raises:
        ValueError: If `pairs` is not of shape `(k, 2)`.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.givens import partners
    >>> keras.ops.convert_to_numpy(partners([[0, 2]], 3)).tolist()
    [2, 1, 0]
    """
    d = checks.integer("d", d, minimum=0)
    check_indices("pairs", pairs, d)
    pairs = check_pairs(pairs)
    alone = ops.arange(d, dtype="int32")
    if pairs.shape[0] == 0:
        return alone
    indices = ops.concatenate([pairs[:, 0], pairs[:, 1]])[:, None]
    values = ops.concatenate([pairs[:, 1], pairs[:, 0]])
    return ops.scatter_update(alone, indices, values)


def check_pairs(pairs):
    """`pairs` as an integer tensor `(k, 2)`.

    Example:

    >>> from tf_spectral.linalg.givens import check_pairs
    >>> tuple(check_pairs([[0, 1], [2, 3]]).shape)
    (2, 2)
    """
    pairs = checks.tensor("pairs", pairs)
    shape = tuple(pairs.shape)
    integer = "int" in backend.standardize_dtype(pairs.dtype)
    if len(shape) != 2 or shape[1] != 2 or not integer:
        raise ValueError(
            "Argument `pairs` must be an integer tensor of shape (k, 2). "
            f"Received: pairs.shape={shape}, "
            f"pairs.dtype={backend.standardize_dtype(pairs.dtype)}"
        )
    return ops.cast(pairs, "int32")


def _sine_and_versine(angles):
    half = _sine(angles / 2)
    return _sine(angles)[:, None], (2 * half * half)[:, None]


def _sine(x):
    """The sine; Keras' own rounds float64 to float32 on JAX."""
    if backend.standardize_dtype(x.dtype) != "float64":
        return ops.sin(x)
    turns = ops.cast(ops.floor(x / math.pi + 0.5), x.dtype)
    odd = turns - 2 * ops.cast(ops.floor(turns / 2), x.dtype)
    x = x - turns * math.pi
    # The Taylor series up to x^23 is exact to rounding for |x| <= pi / 2.
    series = ops.ones_like(x)
    for k in range(23, 1, -2):
        series = 1 - x * x / (k * (k - 1)) * series
    return (1 - 2 * odd) * x * series
