"""Constraints that keep weights orthogonal under any Keras optimizer."""

import math

from keras import constraints
from keras import ops
from keras.saving import register_keras_serializable

from tf_spectral import checks
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

    As every constraint in Keras it leaves the initial value alone: begin
    with an initializer that is orthogonal.

    Args:
        blocks: Positive integer, the number of equal blocks of columns of
            which each is made orthogonal: 4 for the recurrent kernel of
            `keras.layers.LSTM`, 3 for that of `keras.layers.GRU`, which hold
            one matrix for each gate. Defaults to `1`.

    Call arguments:
        w: Floating tensor or variable `(..., n)` of rank 2 or more, such as
            the kernel of a convolution; all axes but the last count as rows.

    Returns:
        Tensor of the shape and dtype of `w`. A block with NaN or infinity
        becomes NaN; a singular value of zero stays zero.

    Raises:
        ValueError: If `blocks` is no positive integer, and when called if `w`
            is not floating, has a rank below 2, or has columns that do not
            divide into `blocks`.

    Example:

    >>> layer = keras.layers.Dense(3, kernel_constraint=Orthogonal())
    >>> model = keras.Sequential([keras.Input((5,)), layer])
    >>> model.compile("adam", "mse")
    >>> _ = model.fit(np.ones((4, 5)), np.ones((4, 3)), verbose=0)
    >>> w = keras.ops.convert_to_numpy(layer.kernel)
    >>> np.allclose(w.T @ w, np.eye(3), atol=1e-5)
    True

    Reference: Higham, "Computing the polar decomposition", 1986.
    """

    def __init__(self, blocks=1):
        self.blocks = checks.integer("blocks", blocks, minimum=1)

    def __call__(self, w):
        return self.by_blocks(nearest_orthogonal, w)

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
        if self.blocks > 1:
            joined = ops.concatenate(results, axis=1)
        return ops.reshape(joined, tensors[0].shape)

    def matrices(self, w):
        """The matrices that are made orthogonal, each for itself.

        Args:
            w: As for the call.

        Returns:
            List of `blocks` tensors of rank 2.
        """
        w = checks.tensor("w", w)
        shape = tuple(w.shape)
        if len(shape) < 2 or shape[-1] % self.blocks:
            raise ValueError(
                "Argument `w` must have a rank of at least 2 and columns that "
                f"divide into {self.blocks} blocks. Received: w.shape={shape}"
            )
        rows, columns = math.prod(shape[:-1]), shape[-1] // self.blocks
        w = ops.reshape(w, (rows, shape[-1]))
        return [
            w[:, i * columns : (i + 1) * columns] for i in range(self.blocks)
        ]

    def get_config(self):
        return {"blocks": self.blocks}
