"""What every function of `linalg` asks of its arguments."""

import numpy as np
from keras import backend
from keras import ops


def check_rank(name, value, rank):
    """`value` as a floating tensor of the given rank (`None`: at least 1)."""
    value = ops.convert_to_tensor(value)
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


def check_units(units):
    """Raises unless `units` is a positive integer."""
    integer = isinstance(units, (int, np.integer))
    if not integer or isinstance(units, bool) or units < 1:
        raise ValueError(
            "Argument `units` must be a positive integer. "
            f"Received: units={units}"
        )


def working_dtype(dtype):
    """The dtype to compute in: half precisions are not enough for factors."""
    dtype = backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
