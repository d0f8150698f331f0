"""What every function of `linalg` asks of its arguments."""

import numpy as np
from keras import backend
from keras import ops

from tf_spectral import checks


def check_rank(name, value, rank):
    """`value` as a floating tensor of the given rank (`None`: at least 1)."""
    value = checks.tensor(name, value)
    dtype = backend.standardize_dtype(value.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"Argument `{name}` must be a floating tensor. "
            f"Expected a real floating dtype, Received: {name}.dtype={dtype}"
        )
    actual = len(value.shape)
    if actual != rank and not (rank is None and actual > 0):
        wanted = "at least 1" if rank is None else rank
        raise ValueError(
            f"Argument `{name}` has the wrong rank. Expected rank {wanted}, "
            f"Received: {name}.shape={tuple(value.shape)}"
        )
    return value


def check_square(name, value):
    """`value` as a square floating matrix."""
    value = check_rank(name, value, 2)
    if value.shape[0] != value.shape[1]:
        raise ValueError(
            f"Argument `{name}` must be a square matrix. Expected shape "
            f"(d, d), Received: {name}.shape={tuple(value.shape)}"
        )
    return value


def check_alike(name, value, other_name, other):
    """Both as floating matrices of one shape."""
    value = check_rank(name, value, 2)
    other = check_rank(other_name, other, 2)
    if tuple(value.shape) != tuple(other.shape):
        raise ValueError(
            f"Argument `{other_name}` must have the shape of `{name}`. "
            f"Expected {tuple(value.shape)}, "
            f"Received: {other_name}.shape={tuple(other.shape)}"
        )
    return value, other


def check_indices(name, value, count):
    """`value` as an integer tensor with entries from 0 to `count - 1`.

    The entries of a tensor are not looked at: a device would be waited for.
    """
    given = value
    value = checks.tensor(name, value)
    dtype = backend.standardize_dtype(value.dtype)
    if "int" not in dtype:
        raise ValueError(
            f"Argument `{name}` must be an integer tensor. "
            f"Expected an integer dtype, Received: {name}.dtype={dtype}"
        )
    if isinstance(given, (int, list, tuple, np.integer, np.ndarray)):
        entries = np.asarray(given)
        if entries.size and not 0 <= entries.min() <= entries.max() < count:
            checks.refuse(
                name, "hold places of rows", given, f"0 to d - 1 = {count - 1}"
            )
    return ops.cast(value, "int32")


def working_dtype(dtype):
    """The dtype to compute in: half precisions are not enough for factors."""
    dtype = backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
