"""Constraints that keep weights orthogonal under any Keras optimizer."""

import math
import warnings

from keras import constraints
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
from tf_spectral import kernel_names
from tf_spectral.linalg.orthogonal import nearest_orthogonal


# The parametrization of this name has the registered name `Orthogonal`.
@register_keras_serializable("tf_spectral", "OrthogonalConstraint")
class Orthogonal(constraints.Constraint):
    """Replaces a weight by the nearest orthogonal matrix.

    Keras applies a constraint after each step of the optimizer, so a layer
    under it trains on the orthogonal group (square kernels) or the Stiefel
    manifold (tall kernels: orthonormal columns, wide ones: orthonormal rows)
    with any optimizer. The group has two components, of determinant 1 and
    -1: small steps never lead from one to the other.

    It holds after each step. Averages of weights (`use_ema`,
    `keras.callbacks.SwapEMAWeights`) are written without a step: the
    optimizers of this library keep their averages orthogonal, for others add
    `tf_spectral.callbacks.OrthogonalAverages`.

    As every constraint in Keras it leaves the initial value alone: begin
    with an initializer that is orthogonal.

    Which matrix a weight is shows in its shape and, where Keras hands over
    the variable, in its name:

    | weight | shape | matrices |
    |---|---|---|
    | Dense, SimpleRNN | `(in, out)` | one |
    | recurrent kernel of LSTM, GRU | `(n, 4 n)`, `(n, 3 n)` | one a gate |
    | kernel of LSTM, GRU | `(in, 4 n)`, `(in, 3 n)` | one a gate |
    | convolution | `(window, ..., in, out)` | one of `out` columns |
    | kernels of ConvLSTM | `(window, ..., in, 4 out)` | one a gate |
    | query, key, value of attention | `(in, heads, size)` | one of `in` rows |
    | output of attention | `(heads, size, out)` | one of `out` columns |

    The map into each head has orthonormal columns, too, where `heads * size`
    is at most `in`. A weight of rank 3 or more whose name does not tell, such
    as that of `keras.layers.EinsumDense`, is taken as a convolution, and a
    warning says so: name `input_axes` then. Gates of a cell that you gave a
    name of your own need `blocks` for its `kernel`; no name tells the groups
    of a convolution with `groups=g`: pass `blocks=g`, else the map of each
    group is not orthogonal.

    Args:
        blocks: Positive integer, the number of equal blocks of columns of
            which each is made orthogonal. Defaults to `None`: one for each
            gate of a weight named as in the table, else one.
        input_axes: Positive integer, how many of the first axes count as
            rows. Defaults to `None`: as in the table.

    Call arguments:
        w: Floating variable or tensor of rank 2 or more. A tensor has no
            name: it is one matrix, all axes but the last are rows.

    Returns:
        Tensor of the shape and dtype of `w`, orthogonal for every finite `w`,
        see `linalg.orthogonal.nearest_orthogonal`. A block with NaN or
        infinity becomes NaN.

    Raises:
        ValueError: If an argument is no positive integer, and when called if
            `w` is not floating, has too few axes, or has columns that do not
            divide into `blocks`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.constraints import Orthogonal
    >>> layer = keras.layers.Dense(3, kernel_constraint=Orthogonal())
    >>> model = keras.Sequential([keras.Input((5,)), layer])
    >>> model.compile("adam", "mse")
    >>> _ = model.fit(np.ones((4, 5)), np.ones((4, 3)), verbose=0)
    >>> w = keras.ops.convert_to_numpy(layer.kernel)
    >>> np.allclose(w.T @ w, np.eye(3), atol=1e-5)
    True

    Reference: Higham, "Computing the polar decomposition", 1986.
    """

    def __init__(self, blocks=None, input_axes=None):
        self.blocks = _checked("blocks", blocks)
        self.input_axes = _checked("input_axes", input_axes)
        self._warned = False

    def __call__(self, w):
        return self.settled(w).by_blocks(nearest_orthogonal, w)

    def settled(self, w):
        """The constraint with no argument left to the name of a weight.

        Args:
            w: As for the call.

        Returns:
            `Orthogonal` with integers as arguments.
        """
        shape = tuple(w.shape)
        names = kernel_names.names_of(w)
        axes = self.input_axes
        if axes is None:
            axes, told = _input_axes(names, shape)
            if not told:
                self._warn(w, axes)
        blocks = self.blocks or _gates(names, shape)
        if blocks == self.blocks and axes == self.input_axes:
            return self
        return Orthogonal(blocks, axes)

    def _warn(self, w, axes):
        if not self._warned:
            self._warned = True
            shape = tuple(w.shape)
            warnings.warn(
                f"`Orthogonal` takes {w.path} of shape {shape} as one matrix "
                f"with {math.prod(shape[:axes])} rows: the name does not tell "
                "which axes are rows. Pass `input_axes`, how many of the first "
                "they are, or give `MultiHeadAttention` a name with "
                "`attention` in it.",
                stacklevel=4,
            )

    def by_blocks(self, function, *tensors):
        """A function of matrices, applied to each that is made orthogonal.

        Args:
            function: Function of as many matrices as there are tensors.
            *tensors: As for the call, all of one shape.

        Returns:
            Tensor of that shape.
        """
        results = [function(*m) for m in zip(*map(self.matrices, tensors))]
        joined = results[0]
        if len(results) > 1:
            joined = ops.concatenate(results, axis=1)
        return ops.reshape(joined, tensors[0].shape)

    def matrices(self, w):
        """The matrices that are made orthogonal, each for itself.

        Args:
            w: As for the call.

        Returns:
            List of tensors of rank 2.
        """
        settled = self.settled(w)
        blocks, axes = settled.blocks, settled.input_axes
        w = checks.tensor("w", w)
        shape = tuple(w.shape)
        rows, width = math.prod(shape[:axes]), math.prod(shape[axes:])
        if len(shape) <= axes or width % blocks:
            raise ValueError(
                f"Argument `w` must have a rank of at least {axes + 1} and "
                f"columns that divide into {blocks} blocks. "
                f"Received: w.shape={shape}"
            )
        columns = width // blocks
        w = ops.reshape(w, (rows, width))
        return [w[:, i * columns : (i + 1) * columns] for i in range(blocks)]

    def get_config(self):
        return {"blocks": self.blocks, "input_axes": self.input_axes}


def _checked(name, value):
    return None if value is None else checks.integer(name, value, minimum=1)


def _input_axes(names, shape):
    """How many axes are rows, and whether the names tell so."""
    all_but_one = max(len(shape) - 1, 1)
    if len(shape) < 3 or not names:
        return all_but_one, True
    if kernel_names.is_into_heads(names, shape):
        return 1, kernel_names.is_of_attention(names)
    # A depthwise kernel is many small matrices, which no axes tell apart.
    layer = kernel_names.layer_of(names)
    told = "conv" in layer and not kernel_names.is_depthwise(names)
    return all_but_one, told or layer == "attention_output"


def _gates(names, shape):
    """How many gates lie side by side in a kernel."""
    is_kernel = names and "kernel" in names[0] and len(shape) > 1
    return kernel_names.gates(names, shape) if is_kernel else 1
