"""Matrices as variables of their own while a model is traced."""

import contextlib

import keras
from keras import ops

from tf_spectral.parametrizations.svd import SVD


@contextlib.contextmanager
def frozen_matrices(model):
    """Within it every `SVD` of the model reads off what it else computes.

    Whatever is traced inside has no reflectors in its graph: the matrix, or
    the terms of `diagonal_plus_low_rank`, where that form was cheaper, are
    variables that hold the values of now.

    Args:
        model: Built Keras model.
    """
    with contextlib.ExitStack() as stack:
        for part in model._flatten_layers():
            if isinstance(part, SVD):
                stack.enter_context(_frozen(part))
        yield


@contextlib.contextmanager
def _frozen(svd):
    # What nobody reads is not saved either.
    matrix = _constant(svd.matrix())
    terms = _constant(*svd.diagonal_plus_low_rank())
    svd.matrix, svd.diagonal_plus_low_rank = matrix, terms
    try:
        yield
    finally:
        del svd.matrix, svd.diagonal_plus_low_rank


def _constant(*tensors):
    variables = [
        keras.Variable(t, dtype=t.dtype, trainable=False) for t in tensors
    ]

    def values():
        values = tuple(ops.convert_to_tensor(v) for v in variables)
        return values if len(values) > 1 else values[0]

    return values
