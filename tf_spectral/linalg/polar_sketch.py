"""The polar factor of a matrix of low rank, from few of its directions.

With `b` of spectral norm at most one, `c = x b` and `q` a factor of `c`,
`q b^T` has norm at most one and `<x, q b^T> = <c, q>`: a lower bound of the
nuclear norm whatever `b` is, and almost all of it if the rows of `x` lie in
the span of `b`.
"""

import numpy as np
from keras import backend
from keras import ops

from tf_spectral.linalg.polar_schedules import BASIS
from tf_spectral.linalg.polar_steps import iterate

# Part of the nuclear norm that may be outside of the sketch.
_TOLERANCE = 0.01


def sketched_factor(x, schedule, k):
    """The approximate polar factor from `k` sums of the rows of `x`.

    Args:
        x: Tensor `(p, n)`, `p >= n`, of entries at most one in size.
        schedule: A `Schedule` of `polar_schedules`.
        k: Integer below `n`.

    Returns:
        Tensor `(p, n)`: `iterate(x, schedule)` where the directions outside
        of the sketch could hold more than a hundredth of the nuclear norm.
    """
    b = iterate(ops.transpose(signed_sums(x, k, seed=0)), BASIS)
    c = x @ b
    q = iterate(c, schedule)
    bt = ops.transpose(b)
    # Sums independent of the first ones: the squared norm of what of them is
    # outside of the basis has the squared norm of the same of x as its mean.
    sums = signed_sums(x, k, seed=1)
    rest = sums - (sums @ b) @ bt
    lost = ops.sqrt(x.shape[1] * ops.sum(rest * rest))
    return ops.cond(
        lost <= _TOLERANCE * ops.sum(c * q),
        lambda: q @ bt,
        lambda: iterate(x, schedule),
    )


def signed_sums(x, k, seed):
    """`k` sums of the rows of `x` with random signs, in one pass.

    Clarkson and Woodruff, "Low rank approximation and regression in input
    sparsity time", 2013. The signs are fixed, so that results repeat.
    """
    p, n = x.shape
    k, groups = min(k, p), -(-p // k)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(p, 1))
    dtype = backend.standardize_dtype(x.dtype)
    x = x * ops.convert_to_tensor(signs.astype(dtype))
    x = ops.pad(x, [[0, groups * k - p], [0, 0]])
    # Another seed sums other rows: neighbours, or rows a stride apart.
    if seed % 2:
        return ops.sum(ops.reshape(x, (k, groups, n)), axis=1)
    return ops.sum(ops.reshape(x, (groups, k, n)), axis=0)
