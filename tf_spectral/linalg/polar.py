"""Polar factor and nuclear norm without singular vectors.

Odd polynomials of a matrix act on its singular values alone; they take only
products of matrices (math 1.2). Any `Q` of spectral norm at most one bounds
the nuclear norm from below by `<x, Q>` (math 1.3): that is what is returned
as nuclear norm, so a step made from both keeps its guarantee.
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import in_full_precision
from tf_spectral.linalg.checks import check_rank
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.linalg.polar_schedules import SCHEDULES
from tf_spectral.linalg.polar_sketch import sketched_factor
from tf_spectral.linalg.polar_steps import iterate
from tf_spectral.linalg.polar_steps import largest_entry
from tf_spectral.linalg.polar_steps import rounding_margin
from tf_spectral.linalg.polar_steps import safe_divisor
from tf_spectral.linalg.polar_steps import scaled_down


def polar_factor(x, exact=False, accuracy="high", sketch=None):
    """The polar factor `A B^T` of a matrix `x = A diag(s) B^T`.

    See `polar_and_nuclear` for arguments, errors and source.

    Returns:
        Tensor of the shape and dtype of `x`, of spectral norm at most one
        (up to 1e-6 in `float32`). Singular values from `1e-3` of the largest
        on become one to 2e-6 at `accuracy="high"`; smaller ones, which
        include those of rounding, become something between zero and one.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.polar import polar_factor
    >>> q = polar_factor([[0.0, -4.0], [3.0, 0.0]])
    >>> keras.ops.convert_to_numpy(keras.ops.round(q)).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    return polar_and_nuclear(x, exact, accuracy, sketch)[0]


def nuclear_norm(x, exact=False, accuracy="high", sketch=None):
    """The sum of the singular values of a matrix, from below.

    See `polar_and_nuclear` for arguments, errors and source.

    Returns:
        Scalar tensor, `float32` or the wider dtype of `x`.

    Example:

    >>> from tf_spectral.linalg.polar import nuclear_norm
    >>> round(float(nuclear_norm([[0.0, -4.0], [3.0, 0.0]])), 4)
    7.0
    """
    return polar_and_nuclear(x, exact, accuracy, sketch)[1]


def polar_and_nuclear(x, exact=False, accuracy="standard", sketch=None):
    """Approximate polar factor and the nuclear norm it certifies.

    Args:
        x: Floating tensor `(n_in, n_out)`. Zero gives zero; NaN or infinity
            give a norm that is not finite.
        exact: Boolean, whether to use a singular value decomposition: for
            reference, it is slow under XLA. Defaults to `False`.
        accuracy: `"high"`: six Polar Express steps and a cubic one, for a
            factor that is orthogonal to 2e-6. `"standard"` takes singular
            values from `8e-4` of the scale on to within 0.1% of one,
            `"fast"` those from 0.15 on to 0.96 at least; smaller ones are
            multiplied by what the first of them is. The scale is the largest
            singular value, or more, at most `min(shape)^(1/8)` times it. So
            `nu` is at least 0.99 and 0.85 of the Frobenius norm, and in
            gradients met in practice of the nuclear norm; of one with a long
            tail `"fast"` may see but half. Defaults to `"standard"`.
        sketch: `None`, or the number of directions to look for `x` in. Where
            the rank of `x` is well below `min(n_in, n_out)`, such as that of
            a gradient from a small batch, this is faster; where too
            much would be lost, all of `x` is used. Defaults to `None`.

    Returns:
        Tuple `(q, nu)`: `q` of the shape and dtype of `x`, of spectral norm
        at most one (up to 1e-6 in `float32`); `nu = <x, q>` at most the
        nuclear norm, `float32` or the wider dtype of `x`. Both hold for the
        `q` that is returned: in half precision it is shortened by what
        rounding may add.

    Raises:
        ValueError: If `x` is not a floating matrix, `accuracy` is unknown, or
            `sketch` is not a positive integer.

    Example:

    >>> from tf_spectral.linalg.polar import polar_and_nuclear
    >>> q, nu = polar_and_nuclear([[0.0, -4.0], [3.0, 0.0]], accuracy="high")
    >>> 6.99 < float(nu) <= 7.0
    True

    Reference: Amsel et al., "The Polar Express", 2025; Tropp, "Randomized
    algorithms", 2011 (range finder) for the sketch.
    """
    x = check_rank("x", x, 2)
    accuracy = checks.choice("accuracy", accuracy, SCHEDULES)
    exact = checks.boolean("exact", exact)
    if sketch is not None:
        sketch = checks.integer("sketch", sketch, minimum=1)
    dtype = backend.standardize_dtype(x.dtype)
    x = ops.cast(x, working_dtype(dtype))
    if 0 in x.shape:
        return ops.cast(x, dtype), ops.zeros((), x.dtype)
    narrow = dtype if dtype != working_dtype(dtype) else None
    return _computed(x, exact, accuracy, sketch, narrow)


@in_full_precision
def _computed(x, exact, accuracy, sketch, narrow):
    """Both of a matrix of the working dtype; the factor in `narrow`, if any."""
    wide = x.shape[0] < x.shape[1]
    scale = largest_entry(x)
    z = scaled_down(ops.transpose(x) if wide else x, scale)
    if exact:
        q, nu = _by_svd(z)
    else:
        q = _factor(z, SCHEDULES[accuracy], sketch)
        nu = ops.sum(z * q) / rounding_margin(z)
    if narrow:
        q = ops.cast(_room_for_rounding(q, narrow), narrow)
        nu = ops.sum(z * ops.cast(q, z.dtype)) / rounding_margin(z)
    q = ops.transpose(q) if wide else q
    return q, scale * nu


def _room_for_rounding(q, dtype):
    """A factor so small that its norm is at most one after a rounding.

    What rounds each entry by a share of it moves the norm by at most that
    share of the Frobenius norm, the root of the rank.
    """
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 2.0**-3)
    return q / (1 + unit * math.sqrt(min(q.shape)))


def _factor(z, schedule, sketch):
    """The approximate factor of a tall matrix of entries at most one."""
    n = z.shape[1]
    if n == 1:
        return z / safe_divisor(ops.sqrt(ops.sum(z * z)))
    # A sketch of more than half the columns costs more than it saves.
    if sketch is not None and 2 * sketch <= n:
        return sketched_factor(z, schedule, int(sketch))
    return iterate(z, schedule)


def _by_svd(z):
    a, s, bt = ops.svd(z, full_matrices=False)
    eps = (
        2.0**-52
        if backend.standardize_dtype(z.dtype) == "float64"
        else 2.0**-23
    )
    kept = ops.cast(s > s[0] * eps * max(z.shape), z.dtype)
    return (a * kept) @ bt, ops.sum(s)
