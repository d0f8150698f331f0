"""JointOptimizer: a step that depends on all gradients at once."""

import keras
from keras import backend
from keras import ops


class JointOptimizer(keras.optimizers.Optimizer):
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

    def __init__(self, learning_rate, **kwargs):
        super().__init__(
            learning_rate=as_learning_rate(learning_rate), **kwargs
        )

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

    def assign_sub_if(self, condition, variable, update):
        """`variable -= update()` where the condition holds.

        `update` is not computed where it does not.

        Args:
            condition: Boolean scalar tensor.
            variable: Variable, as `update_step` gets it.
            update: Function without arguments that gives a tensor.
        """
        if backend.backend() == "tensorflow":
            ops.cond(
                condition,
                lambda: self.assign_sub(variable, update()),
                lambda: None,
            )
            return
        value = ops.convert_to_tensor(variable)
        self.assign(
            variable,
            ops.cond(condition, lambda: value - update(), lambda: value),
        )

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
        # An embedding's gradient comes as slices.
        grads = [ops.convert_to_tensor(gradient) for gradient in grads]
        rate = ops.convert_to_tensor(self._get_current_learning_rate())
        return self.joint_step(grads, list(variables), rate)


def as_learning_rate(value):
    """Keras takes Python floats and schedules alone: numbers become floats."""
    is_number = isinstance(value, int) or (
        hasattr(value, "item") and getattr(value, "ndim", None) == 0
    )
    return float(value) if is_number else value
