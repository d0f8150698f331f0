"""Products in full float32, where a bound depends on them.

Accelerators may round the factors of a product to 11 bits or fewer (TF32,
bfloat16), a relative error of 1e-3: what is to be an upper bound, or a matrix
of norm one, would not be one. Functions of bounds are computed without that.
"""

import contextlib
import functools

from keras import backend
from keras import ops
from keras import tree


def in_full_precision(function):
    """Decorator of a function of tensors whose products must not be rounded.

    On JAX and PyTorch its products are computed in full float32. TensorFlow
    has one switch for the whole process, read when a graph runs: where TF32
    products are possible, `float32` arguments are taken to `float64`, for
    which there is no shorter product, and results back.

    Args:
        function: Function that takes and returns tensors, among others.

    Returns:
        Function with the same arguments.
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        if not products_may_be_short():
            return function(*args, **kwargs)
        if backend.backend() == "tensorflow":
            return _in_double(function, args, kwargs)
        with _full_products():
            return function(*args, **kwargs)

    return run


def products_may_be_short():
    """Whether this process may round the factors of `float32` products."""
    return {
        "tensorflow": _short_on_tensorflow,
        "jax": _short_on_jax,
        "torch": _short_on_torch,
    }.get(backend.backend(), lambda: False)()


def _short_on_tensorflow():
    import tensorflow as tf

    switched = tf.config.experimental.tensor_float_32_execution_enabled()
    return switched and bool(tf.config.list_physical_devices("GPU"))


def _short_on_jax():
    import jax

    # The default of an accelerator is whatever is fastest there.
    return jax.default_backend() != "cpu"


def _short_on_torch():
    import torch

    # On processors "medium" may mean products in bfloat16.
    return torch.get_float32_matmul_precision() != "highest"


@contextlib.contextmanager
def _full_products():
    if backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
        return
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _in_double(function, args, kwargs):
    seen = []

    def widened(x):
        if _is_float32(x):
            seen.append(x)
            return ops.cast(x, "float64")
        return x

    args, kwargs = tree.map_structure(widened, (list(args), dict(kwargs)))
    results = function(*args, **kwargs)
    if not seen:
        return results
    return tree.map_structure(
        lambda x: ops.cast(x, "float32") if _is_floating(x) else x, results
    )


def _is_float32(x):
    dtype = getattr(x, "dtype", None)
    return dtype is not None and "float32" in str(dtype)


def _is_floating(x):
    return "float64" in str(getattr(x, "dtype", ""))


def working_dtype(dtype):
    """The dtype to compute in: half precisions are not enough for factors."""
    dtype = backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
