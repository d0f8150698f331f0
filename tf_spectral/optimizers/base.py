"""Bases of the optimizers: steps that see all gradients, rows in place."""

import warnings

import keras
from keras import ops

from tf_spectral import checks
from tf_spectral.backend import variables
from tf_spectral.backend.keras_internals import HookedOptimizer
from tf_spectral.backend.keras_internals import averages_of
from tf_spectral.backend.keras_internals import current_learning_rate
from tf_spectral.backend.keras_internals import trained_variables
from tf_spectral.backend.precision import working_dtype
from tf_spectral.backend.tensors import as_dense
from tf_spectral.constraints import Orthogonal


class InPlaceOptimizer(HookedOptimizer):
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
            _settled_constraint(v) for v in trained_variables(self)
        ]

    def after_averaging(self):
        # The mean of orthogonal matrices is not orthogonal. It is made so
        # here, for `fit`, `evaluate` and `SwapEMAWeights` all take it as it
        # is.
        for average, constraint in zip(averages_of(self), self._constraints):
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
        dtype = working_dtype(variable.dtype)
        variables.assign_sub_if(self, condition, variable, update, dtype)


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
    have no path: ask
    `tf_spectral.backend.keras_internals.place_of` which one it is.
    """

    def joint_step(self, gradients, variables, learning_rate):
        """What to use in place of the gradients.

        Args:
            gradients: List of tensors.
            variables: List of the variables they belong to, those without a
                gradient left out.
            learning_rate: Scalar tensor.

        Returns:
            List of tensors of the same shapes.
        """
        raise NotImplementedError

    def before_updates(self, gradients, variables):
        gradients = [as_dense(gradient) for gradient in gradients]
        rate = ops.convert_to_tensor(current_learning_rate(self))
        return self.joint_step(gradients, variables, rate)


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


def warn_of_skipped_steps(optimizer):
    """Warns once of steps that were skipped because of NaN or Inf."""
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
