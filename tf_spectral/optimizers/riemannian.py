"""RiemannianOptimizer: moves orthogonal weights along their manifold."""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.constraints import Orthogonal
from tf_spectral.linalg.orthogonal import orthogonality_error
from tf_spectral.linalg.orthogonal import reorthogonalize
from tf_spectral.linalg.orthogonal import rounding_of
from tf_spectral.linalg.orthogonal import seems_orthogonal
from tf_spectral.optimizers import requirements
from tf_spectral.optimizers.in_place import InPlaceOptimizer
from tf_spectral.optimizers.in_place import concretely
from tf_spectral.optimizers.layer_steps import all_finite

# A start further than this from orthogonal is worth a word.
TOLERANCE = 1e-4


class RiemannianOptimizer(InPlaceOptimizer):
    """Base of `SRGD` and `SRCD`.

    Variables under `tf_spectral.constraints.Orthogonal` are moved by
    `manifold_step(place, variable, gradient, learning_rate)`, all others by a
    Euclidean optimizer. The constraint itself is not applied: steps stay on
    the manifold, but for rounding, which a cubic step removes every
    `correction_steps(place)` steps, the first included.

    Args:
        learning_rate: Float, schedule or callable.
        euclidean_optimizer: Keras optimizer for the other variables, `None`
            for SGD with this learning rate.
        momentum: Float, of that SGD.
        correction_period: Positive integer, or `None` for the class' own.
        **kwargs: Those of every Keras optimizer.
    """

    def __init__(
        self,
        learning_rate,
        euclidean_optimizer=None,
        momentum=0.0,
        correction_period=None,
        **kwargs,
    ):
        euclidean_optimizer = checks.optimizer(
            "euclidean_optimizer", euclidean_optimizer
        )
        momentum = checks.fraction("momentum", momentum)
        requirements.check_euclidean(euclidean_optimizer, momentum)
        if correction_period is not None:
            correction_period = checks.integer(
                "correction_period", correction_period, minimum=1
            )
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.correction_period = correction_period
        self._given = euclidean_optimizer is not None
        self.euclidean_optimizer = euclidean_optimizer or keras.optimizers.SGD(
            momentum=momentum, name="euclidean_sgd"
        )

    def build(self, variables):
        # Keras' reader of `.h5` files first builds without any.
        if self.built or not variables:
            return
        super().build(variables)
        variables = self._trainable_variables
        self._on_manifold = [
            isinstance(constraint, Orthogonal)
            for constraint in self._constraints
        ]
        self.check_manifold(
            [v for v, on in zip(variables, self._on_manifold) if on]
        )
        flat = [v for v, on in zip(variables, self._on_manifold) if not on]
        if flat:
            requirements.check_unused(self.euclidean_optimizer, flat)
            self.euclidean_optimizer.build(flat)
        self.skipped_steps = self.add_variable(
            (),
            dtype="int32",
            aggregation="only_first_replica",
            name="skipped_steps",
        )
        for variable, on in zip(variables, self._on_manifold):
            if on:
                self._warn_of_start(variable)

    def _warn_of_start(self, variable):
        matrices = variable.constraint.matrices
        error = concretely(
            lambda: max(
                float(ops.convert_to_numpy(_start_error(matrix)))
                for matrix in matrices(variable)
            )
        )
        if not error <= max(TOLERANCE, 20 * rounding_of(variable.dtype)):
            warnings.warn(
                f"{variable.path} does not start orthogonal: "
                f"||W^T W - I|| = {error:.1e}. The first step goes from the "
                "nearest orthogonal matrix.",
                stacklevel=2,
            )

    def check_manifold(self, variables):
        """Raises unless the variables under `Orthogonal` can be moved."""
        if not variables:
            raise ValueError(
                f"{type(self).__name__} has nothing to keep orthogonal. "
                "Expected at least one variable under "
                "`tf_spectral.constraints.Orthogonal`, Received: none"
            )

    def manifold_step(self, place, variable, gradient, learning_rate):
        """Moves a variable; returns whether it could.

        Args:
            place: Integer, which of the trainable variables it is.
            variable: Variable, as `update_step` gets it.
            gradient: Tensor.
            learning_rate: Scalar tensor.

        Returns:
            Boolean scalar tensor. The variable is as it was if false.
        """
        raise NotImplementedError

    def correction_steps(self, place):
        """Every how many steps rounding is removed from a variable."""
        raise NotImplementedError

    @property
    def variables(self):
        return super().variables + self.euclidean_optimizer.variables

    def set_weights(self, weights):
        """Sets the state, that of the Euclidean optimizer included.

        Args:
            weights: List of arrays, in the order of `variables`.

        Raises:
            ValueError: If the optimizer is not built, or if the arrays are not
                as many, and of the shapes, of its variables.
        """
        weights, variables = list(weights), self.variables
        shapes = [tuple(np.shape(weight)) for weight in weights]
        expected = [tuple(variable.shape) for variable in variables]
        if not self.built or shapes != expected:
            raise ValueError(
                "Argument `weights` must be those of a built optimizer. "
                f"Expected arrays of the shapes {expected}, Received: {shapes}"
            )
        for variable, weight in zip(variables, weights):
            variable.assign(weight)

    def apply(self, grads, trainable_variables=None):
        grads = list(grads)
        if not self.built and trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        with _lifted_constraints(
            self._trainable_variables if self.built else []
        ):
            super().apply(grads, trainable_variables)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        self.euclidean_optimizer._iterations.assign_add(1)

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.convert_to_tensor(gradient)
        place = self._get_variable_index(variable)
        if not self._on_manifold[place]:
            self._euclidean_step(gradient, variable, learning_rate)
            return
        self._correct(place, variable)
        taken = self.manifold_step(place, variable, gradient, learning_rate)
        self.assign_add(self.skipped_steps, 1 - ops.cast(taken, "int32"))

    def _euclidean_step(self, gradient, variable, learning_rate):
        # What is no number must not reach momenta: it would stay there.
        finite = all_finite([gradient])
        gradient = ops.where(finite, gradient, ops.zeros_like(gradient))
        inner = self.euclidean_optimizer
        if self._given:
            learning_rate = inner._get_current_learning_rate()
        inner.update_step(gradient, variable, learning_rate)

    def _correct(self, place, variable):
        period = self.correction_period
        if period is None:
            period = self.correction_steps(place)
            if rounding_of(variable.dtype) > rounding_of("float32"):
                # Rounding to half precision is seen after ten steps.
                period = max(1, period // 100)
        steps = ops.convert_to_tensor(self.iterations)

        def corrected():
            value = ops.convert_to_tensor(variable)
            constraint = self._constraints[place]
            # The cubic step is for rounding; from afar it may diverge.
            far = ops.logical_not(self._is_orthogonal(place, value))
            return ops.cond(
                ops.logical_or(ops.equal(steps, 0), far),
                lambda: constraint(value),
                lambda: constraint.by_blocks(reorthogonalize, value),
            )

        self.assign_if(ops.equal(steps % period, 0), variable, corrected)

    def _is_orthogonal(self, place, value):
        """Boolean scalar, whether no block of a value shows an error."""
        matrices = self._constraints[place].matrices(value)
        return ops.all(ops.stack([seems_orthogonal(m) for m in matrices]))

    def _apply_weight_decay(self, variables):
        flat = [
            v
            for v in variables
            if not self._on_manifold[self._get_variable_index(v)]
        ]
        super()._apply_weight_decay(flat)
        if self._given:
            self.euclidean_optimizer._apply_weight_decay(flat)

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        requirements.warn_of_skipped_steps(self)

    def get_config(self):
        inner = None
        if self._given:
            inner = keras.optimizers.serialize(self.euclidean_optimizer)
        return {
            **super().get_config(),
            "euclidean_optimizer": inner,
            "momentum": self.momentum,
            "correction_period": self.correction_period,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if config.get("euclidean_optimizer") is not None:
            # A copy, which Keras changes.
            inner = dict(config["euclidean_optimizer"])
            config["euclidean_optimizer"] = keras.optimizers.deserialize(
                inner, custom_objects
            )
        return super().from_config(config, custom_objects)


def _start_error(matrix):
    """The orthogonality error, or 0 where a few vectors show none.

    The error takes products of matrices in float64, half a minute at 4096
    rows; a random vector shows it as far as the two are not at right angles.
    """
    w = ops.convert_to_numpy(ops.cast(matrix, "float32"))
    w = w.T if w.shape[0] < w.shape[1] else w
    probes = np.random.default_rng(0).standard_normal((w.shape[1], 8))
    probes = probes.astype("float32")
    seen = np.linalg.norm(w.T @ (w @ probes) - probes, axis=0)
    return 0.0 if np.all(seen <= TOLERANCE / 4) else orthogonality_error(matrix)


@contextlib.contextmanager
def _lifted_constraints(variables):
    """Keras applies constraints after each step: these are kept by the step."""
    held = [
        (v, v.constraint)
        for v in variables
        if isinstance(v.constraint, Orthogonal)
    ]
    for variable, _ in held:
        variable.constraint = None
    try:
        yield
    finally:
        for variable, constraint in held:
            variable.constraint = constraint
