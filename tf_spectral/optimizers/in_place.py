"""InPlaceOptimizer: changes a variable in part, or not at all."""

import keras
from keras import backend
from keras import ops


class InPlaceOptimizer(keras.optimizers.Optimizer):
    """Base of optimizers that touch no more of a variable than they change.

    Args:
        learning_rate: Number, schedule or callable.
        **kwargs: Those of every Keras optimizer.
    """

    def __init__(self, learning_rate, **kwargs):
        super().__init__(
            learning_rate=as_learning_rate(learning_rate), **kwargs
        )

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
        self.assign_if(condition, variable, lambda: value - update())

    def gather_rows(self, variable, indices):
        """Rows of a variable; the rest is not read.

        Args:
            variable: Variable, as `update_step` gets it.
            indices: Integer tensor `(k,)`.

        Returns:
            Tensor `(k, ...)`.
        """
        if backend.backend() == "tensorflow":
            import tensorflow as tf

            # To read the variable as a whole would make the next change of
            # it copy it as a whole.
            if isinstance(variable, keras.Variable):
                variable = variable.value
            return tf.gather(variable, indices)
        return ops.take(ops.convert_to_tensor(variable), indices, axis=0)

    def assign_rows(self, variable, indices, rows):
        """Overwrites rows of a variable, in place where the backend can.

        Args:
            variable: Variable, as `update_step` gets it.
            indices: Integer tensor `(k,)`, all different.
            rows: Tensor `(k, ...)`.
        """
        if backend.backend() == "tensorflow":
            import tensorflow as tf

            self.assign(variable, tf.IndexedSlices(rows, indices))
            return
        value = ops.convert_to_tensor(variable)
        self.assign(variable, ops.scatter_update(value, indices[:, None], rows))

    def assign_if(self, condition, variable, value):
        """`variable <- value()` where the condition holds.

        Args:
            condition: Boolean scalar tensor.
            variable: Variable, as `update_step` gets it.
            value: Function without arguments that gives a tensor.
        """
        if backend.backend() == "tensorflow":
            ops.cond(
                condition,
                lambda: self.assign(variable, value()),
                lambda: None,
            )
            return
        old = ops.convert_to_tensor(variable)
        self.assign(variable, ops.cond(condition, value, lambda: old))


def as_learning_rate(value):
    """Keras takes Python floats and schedules alone: numbers become floats."""
    is_number = isinstance(value, int) or (
        hasattr(value, "item") and getattr(value, "ndim", None) == 0
    )
    return float(value) if is_number else value


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
