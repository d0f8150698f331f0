"""What layers take as inputs, beside tensors of their own dtype."""

import keras
from keras import ops


def real_tensor(name, tensor, dtype):
    """A tensor in the dtype of a layer: integers and booleans are cast, too.

    Args:
        name: String, the argument.
        tensor: Tensor, which may be sparse.
        dtype: String, the floating dtype.

    Raises:
        ValueError: If the tensor is complex or holds no numbers, of which a
            cast would lose a part or fail late.
    """
    given = keras.backend.standardize_dtype(tensor.dtype)
    if not any(kind in given for kind in ("float", "int", "bool")):
        raise ValueError(
            f"Argument `{name}` must be a tensor of real numbers. Expected a "
            f"floating or integer dtype, Received: {name}.dtype={given}"
        )
    return tensor if given == dtype else ops.cast(tensor, dtype)


def is_sparse(tensor):
    """Whether it is a sparse tensor of the backend."""
    return isinstance(tensor, _SPARSE)


if keras.backend.backend() == "tensorflow":
    from tensorflow import SparseTensor as _SPARSE
elif keras.backend.backend() == "jax":
    from jax.experimental.sparse import JAXSparse as _SPARSE
else:
    # Keras has none on PyTorch.
    _SPARSE = ()
