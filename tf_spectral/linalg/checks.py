"""What every function of `linalg` asks of its arguments."""

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


def working_dtype(dtype):
    """The dtype to compute in: half precisions are not enough for factors."""
    dtype = backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
