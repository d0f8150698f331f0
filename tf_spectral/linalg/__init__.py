"""Pure functions of tensors: no variables, no classes.

Products are written with `@`: `keras.ops.matmul` rounds float64 to float32 on
PyTorch.
"""

from tf_spectral.linalg import factorization
from tf_spectral.linalg import householder
from tf_spectral.linalg import spectral
