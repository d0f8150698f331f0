"""InPlaceOptimizer: changes a variable in part, or not at all."""

import keras
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.constraints import Orthogonal
from tf_spectral.linalg.checks import working_dtype


class InPlaceOptimizer(keras.optimizers.Optimizer):
    """Base of optimizers that touch no more of a variable than they change.

    Args:
        learning_rate: Number, schedule or callable.
        **kwargs: Those of every Keras optimizer.
    """

    def __init__(self, learning_rate, **kwargs):
        super().__init__(
            learning_rate=checks.learning_rate("learning_rate", learning_rate),
            **checks.optimizer_options(kwargs),
        )

    def build(self, variables):
        super().build(variables)
        # Kept by place: a variable of TensorFlow's own has none, and no name
        # to settle anything by, and some optimizers lift them during a step.
        self._constraints = [
            _settled_constraint(v) for v in self._trainable_variables
        ]

    def _update_model_variables_moving_average(self, trainable_variables):
        super()._update_model_variables_moving_average(trainable_variables)
        if not self.use_ema:
            return
        # The mean of orthogonal matrices is not orthogonal. It is made so
        # here, for `fit`, `evaluate` and `SwapEMAWeights` all take it as it
        # is.
        averages = self._model_variables_moving_average
        for average, constraint in zip(averages, self._constraints):
            if average is not None and isinstance(constraint, Orthogonal):
                average.assign(constraint(average))

    def assign_sub_if(self, condition, variable, update):
        """`variable -= update()` where the condition holds.

        `update` is not computed where it does not. A variable of half
        precision is rounded once, after the difference.

        Args:
            condition: Boolean scalar tensor.
            variable: Variable, as `update_step` gets it.
            update: Function without arguments that gives a tensor.
        """
        dtype = backend.standardize_dtype(variable.dtype)
        working = working_dtype(dtype)
        if backend.backend() == "tensorflow" and working == dtype:
            ops.cond(
                condition,
                lambda: self.assign_sub(variable, update()),
                lambda: None,
            )
            return

        def difference():
            value = ops.cast(ops.convert_to_tensor(variable), working)
            return ops.cast(value - ops.cast(update(), working), dtype)

        self.assign_if(condition, variable, difference)

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


def _settled_constraint(variable):
    constraint = getattr(variable, "constraint", None)
    if isinstance(constraint, Orthogonal):
        return constraint.settled(variable)
    return constraint


def path_of(variable):
    """The path of a variable; one of TensorFlow's own has a name alone."""
    return getattr(variable, "path", None) or variable.name


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
