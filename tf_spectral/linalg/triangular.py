"""Upper triangles and diagonals.

`keras.ops.triu` and `keras.ops.diag` of Keras 3.8 cannot be traced on
TensorFlow; these are made of operations that can.
"""

from keras import ops


def upper_triangle(x, k=0):
    """The matrix `x` with zeros below its k-th diagonal."""
    rows, columns = (ops.arange(n) for n in x.shape)
    return ops.where(columns[None] >= rows[:, None] + k, x, ops.zeros_like(x))


def diagonal_matrix(d):
    """The square matrix with the vector `d` on its diagonal."""
    return ops.eye(d.shape[0], dtype=d.dtype) * d
