"""Bases of the optimizers: steps that see all gradients, rows in place."""

import warnings

import keras
from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.constraints import Orthogonal


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


class IterationSeed(keras.random.SeedGenerator):
    """A seed that depends on the number of the step and on nothing else.

    A training that goes on from a checkpoint draws what it would have drawn,
    and all replicas draw the same.

    Args:
        seed: Integer.
        count: Function without arguments that gives the number of the step,
            an integer scalar tensor.
    """

    def __init__(self, seed, count):
        super().__init__(seed)
        self._count = count

    def next(self, ordered=True):
        seed, _ = ops.unstack(ops.convert_to_tensor(self.state))
        return ops.stack([seed, ops.cast(self._count(), seed.dtype)])


def as_dense(gradient):
    """A gradient as a tensor; that of an embedding comes as slices.

    `ops.convert_to_tensor` leaves slices as they are, and eager operations
    take them, but the branches of a compiled `ops.cond` must agree.
    """
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return ops.convert_to_tensor(gradient)


def all_finite(tensors):
    """Boolean scalar: no tensor has NaN or Inf, or a sum that overflows.

    Sums are in `float32` or better: in `float16` those of common gradients
    overflow. `None` is passed over.
    """
    sums = [
        ops.sum(ops.cast(x, working_dtype(x.dtype)))
        for x in tensors
        if x is not None
    ]
    return ops.all(ops.stack([ops.isfinite(total) for total in sums]))


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


def warn_of_skipped_steps(optimizer):
    """Tells once of steps left out for gradients that are no numbers."""
    skipped = int(ops.convert_to_numpy(optimizer.skipped_steps))
    if skipped > getattr(optimizer, "_warned_of_skipped", 0):
        optimizer._warned_of_skipped = skipped
        warnings.warn(
            f"{optimizer.name} left out {skipped} steps whose gradients had "
            "NaN or Inf or were too large for their dtype; the weights are as "
            "if they had not been.",
            stacklevel=3,
        )


def _settled_constraint(variable):
    constraint = getattr(variable, "constraint", None)
    if isinstance(constraint, Orthogonal):
        return constraint.settled(variable)
    return constraint
