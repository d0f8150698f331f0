"""Sparse tensors, slices of gradients, and values outside of graphs."""

from keras import backend
from keras import ops


def is_sparse(tensor):
    """Whether it is a sparse tensor of the backend."""
    if backend.backend() == "tensorflow":
        from tensorflow import SparseTensor

        return isinstance(tensor, SparseTensor)
    if backend.backend() == "jax":
        from jax.experimental.sparse import JAXSparse

        return isinstance(tensor, JAXSparse)
    # Keras has none on PyTorch.
    return False


def as_dense(gradient):
    """A gradient as a tensor; that of an embedding comes as slices.

    `ops.convert_to_tensor` leaves slices as they are, and eager operations
    take them, but the branches of a compiled `ops.cond` must agree.
    """
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return ops.convert_to_tensor(gradient)


def concretely(function):
    """What a function without arguments returns, not a part of any graph.

    Args:
        function: Function that may read variables.

    Returns:
        Its result, with tensors that have values.
    """
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.init_scope():
            return function()
    return function()


def top_k_takes_any():
    """Whether `ops.top_k` takes any of equal entries, not the first.

    As PyTorch's does.
    """
    return backend.backend() == "torch"


def same_pooling_repeats_edges():
    """Whether average pooling with "same" padding repeats the edges.

    On PyTorch, where Keras pads by hand; elsewhere a window at the edge
    averages over what it has.
    """
    return backend.backend() == "torch"


def is_differentiated_again():
    """Whether the backward pass that runs is itself to be differentiated.

    A question for PyTorch only, where a gradient of our own must then be
    computed by operations that are recorded.
    """
    if backend.backend() != "torch":
        return False
    import torch

    return torch.is_grad_enabled()
