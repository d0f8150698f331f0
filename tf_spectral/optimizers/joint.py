"""JointOptimizer: a step that depends on all gradients at once."""

from keras import backend
from keras import ops

from tf_spectral.optimizers.in_place import InPlaceOptimizer


class JointOptimizer(InPlaceOptimizer):
    """Base of optimizers that look at all gradients before they move.

    A subclass implements

    - `joint_step(gradients, variables, learning_rate)`, called once in each
      step after accumulation, unscaling, clipping and, under
      `tf.distribute`, after the sum over replicas. It returns what
      `update_step` gets in place of each gradient;
    - `update_step(gradient, variable, learning_rate)`, as in Keras. What the
      one learns for the other goes through variables of the optimizer: with
      replicas the two run in different places.

    On TensorFlow `update_step` gets variables of TensorFlow's own kind, which
    have no path: ask `_get_variable_index(variable)` which one it is.
    """

    def joint_step(self, gradients, variables, learning_rate):
        """What takes the place of the gradients.

        Args:
            gradients: List of tensors.
            variables: List of the variables they belong to, those without a
                gradient left out.
            learning_rate: Scalar tensor.

        Returns:
            List of tensors of the same shapes.
        """
        raise NotImplementedError

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if backend.backend() != "tensorflow":
            grads = self._joint(grads, trainable_variables)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # TensorFlow calls this on the way from the one above to the updates.
        # Before it, each replica knows only its own gradients.
        grads_and_vars = super()._all_reduce_sum_gradients(grads_and_vars)
        grads, variables = zip(*grads_and_vars)
        return list(zip(self._joint(grads, variables), variables))

    def _joint(self, grads, variables):
        grads = [as_dense(gradient) for gradient in grads]
        rate = ops.convert_to_tensor(self._get_current_learning_rate())
        return self.joint_step(grads, list(variables), rate)


def as_dense(gradient):
    """A gradient as a tensor; that of an embedding comes as slices.

    `ops.convert_to_tensor` leaves slices as they are, and eager operations
    take them, but the branches of a compiled `ops.cond` must agree.
    """
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return ops.convert_to_tensor(gradient)
