"""SRGD, and what optimizers of orthogonal weights share."""

import contextlib
import math
import warnings

import keras
import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.keras_internals import count_step
from tf_spectral.backend.keras_internals import current_learning_rate
from tf_spectral.backend.keras_internals import decay_weights
from tf_spectral.backend.keras_internals import place_of
from tf_spectral.backend.keras_internals import trained_variables
from tf_spectral.backend.precision import working_dtype
from tf_spectral.backend.tensors import concretely
from tf_spectral.backend.variables import assign_if
from tf_spectral.constraints import Orthogonal
from tf_spectral.linalg.orthogonal import orthogonality_error
from tf_spectral.linalg.orthogonal import reorthogonalize
from tf_spectral.linalg.orthogonal import riemannian_gradient
from tf_spectral.linalg.orthogonal import rounding_of
from tf_spectral.linalg.orthogonal import seems_orthogonal
from tf_spectral.linalg.orthogonal import skew_gradient
from tf_spectral.linalg.polar import polar_factor
from tf_spectral.linalg.retractions import METHODS
from tf_spectral.linalg.retractions import retract
from tf_spectral.linalg.retractions import retract_skew
from tf_spectral.linalg.retractions import shortened
from tf_spectral.optimizers.base import InPlaceOptimizer
from tf_spectral.optimizers.base import all_finite
from tf_spectral.optimizers.base import warn_of_skipped_steps
from tf_spectral.optimizers.typical import corrected
from tf_spectral.optimizers.typical import quotient
from tf_spectral.optimizers.typical import root_mean
from tf_spectral.optimizers.typical import size

# Keras optimizers whose `update_step` is not all of a step.
_NOT_ONE_BY_ONE = {
    "Nadam": "its steps share a variable",
    "LossScaleOptimizer": (
        "it wraps another one (wrap the outer optimizer, or give the inner one)"
    ),
    "MultiOptimizer": "it wraps others (put the outer optimizer into it)",
}

METRICS = ("frobenius", "spectral")

# Of steps that are divided by the usual size of gradients.
RATE = 1e-3

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
        learning_rate: Float, schedule or callable; `None` for `RATE`, and
            Adam as the default of the other variables.
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
        if learning_rate is None:
            learning_rate = RATE
            euclidean_optimizer = euclidean_optimizer or keras.optimizers.Adam(
                RATE, name="euclidean_adam"
            )
        _check_euclidean(euclidean_optimizer, momentum)
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
        variables = trained_variables(self)
        self._on_manifold = [
            isinstance(constraint, Orthogonal)
            for constraint in self._constraints
        ]
        self.check_manifold(
            [v for v, on in zip(variables, self._on_manifold) if on]
        )
        flat = [v for v, on in zip(variables, self._on_manifold) if not on]
        if flat:
            _check_unused(self.euclidean_optimizer, flat)
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
        with _lifted_constraints(trained_variables(self) if self.built else []):
            super().apply(grads, trainable_variables)

    def after_updates(self):
        count_step(self.euclidean_optimizer)

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.convert_to_tensor(gradient)
        place = place_of(self, variable)
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
            learning_rate = current_learning_rate(inner)
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

        assign_if(self, ops.equal(steps % period, 0), variable, corrected)

    def _is_orthogonal(self, place, value):
        """Boolean scalar, whether no block of a value shows an error."""
        matrices = self._constraints[place].matrices(value)
        return ops.all(ops.stack([seems_orthogonal(m) for m in matrices]))

    def decayed(self, variables):
        flat = [
            v for v in variables if not self._on_manifold[place_of(self, v)]
        ]
        if self._given:
            decay_weights(self.euclidean_optimizer, flat)
        return flat

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        warn_of_skipped_steps(self)

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


@keras.saving.register_keras_serializable("tf_spectral")
class SRGD(RiemannianOptimizer):
    """Gradient descent along the orthogonal group.

    Each variable under `tf_spectral.constraints.Orthogonal`, square or
    rectangular, takes a step against its Riemannian gradient and is led back
    to the manifold by a retraction. No step turns by more than half a turn,
    however large the gradient. All other variables are left to a
    Euclidean optimizer.

    `SRGD()` needs no learning rate: steps are divided by the usual size of
    the gradient. `SRGD(2e-4)` is the method of the paper.

    Args:
        learning_rate: Float, a schedule, or a callable. Defaults to `None`:
            `1e-3` with `adaptive="rms"`, and Adam with this rate as the
            Euclidean optimizer.
        retraction: `"expm"` (the geodesic), `"cayley"`, `"qr"` or `"polar"`.
            Defaults to `"expm"`.
        metric: `"frobenius"`: the step is the gradient. `"spectral"`, for
            square variables: steepest descent in the spectral norm, a step
            that turns every plane of the gradient by the angle
            `learning_rate`. Defaults to `"frobenius"`.
        adaptive: `"rms"` divides gradients by the root of the mean square of
            their norms: a usual step is as long as one that turns each of
            `d // 2` planes by the angle `learning_rate`. `None` does not. Not
            for `metric="spectral"`. Defaults to `None` beside a learning
            rate, else to `"rms"`.
        euclidean_optimizer: Keras optimizer for the variables without the
            constraint, with a learning rate of its own; its state is saved
            with this one's. Defaults to SGD with `learning_rate`, or Adam if
            there is none.
        momentum: Float, of that SGD. Defaults to `0.0`.
        correction_period: Positive integer: every how many steps the rounding
            error of orthogonality is removed. Defaults to 1000, in half
            precision to 10.
        **kwargs: Those of every Keras optimizer. Weight decay does not touch
            orthogonal variables.

    Attributes:
        skipped_steps: Variable, how many steps of an orthogonal variable met
            a gradient with NaN or Inf, or would have left the manifold. Such
            a step leaves it as it was.

    Raises:
        ValueError: If an argument is not among the named, and when the
            optimizer is built if no variable is under the constraint.

    Example:

    >>> import keras
    >>> from tf_spectral.constraints import Orthogonal
    >>> from tf_spectral.optimizers import SRGD
    >>> model = keras.Sequential([
    ...     keras.Input((None, 2)),
    ...     keras.layers.SimpleRNN(8, recurrent_constraint=Orthogonal()),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile(SRGD(), "mse")
    >>> model.compile(SRGD(2e-4, euclidean_optimizer="adam"), "mse")

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022; for the spectral metric
    Bernstein et al., "Modular duality in deep learning", 2024.
    """

    def __init__(
        self,
        learning_rate=None,
        retraction="expm",
        metric="frobenius",
        adaptive=None,
        euclidean_optimizer=None,
        momentum=0.0,
        correction_period=None,
        name=None,
        **kwargs,
    ):
        super().__init__(
            learning_rate,
            euclidean_optimizer,
            momentum,
            correction_period,
            name=name,
            **kwargs,
        )
        self.retraction = checks.choice("retraction", retraction, METHODS)
        self.metric = checks.choice("metric", metric, METRICS)
        adaptive = checks.choice("adaptive", adaptive, (None, "rms"))
        if adaptive and metric == "spectral":
            raise ValueError(
                "Steps in the spectral metric are as long as the learning "
                'rate. Expected adaptive=None, or metric="frobenius", '
                f"Received: adaptive={adaptive!r}"
            )
        if learning_rate is None and metric == "frobenius":
            adaptive = "rms"
        self.adaptive = adaptive

    def build(self, variables):
        # Keras' reader of `.h5` files first builds without any.
        if self.built or not variables:
            return
        super().build(variables)
        self._typical = [
            self._new_size(variable) if self.adaptive and on else None
            for variable, on in zip(trained_variables(self), self._on_manifold)
        ]

    def _new_size(self, variable):
        # Not of its square, which may be no number.
        return self.add_variable(
            (),
            dtype=working_dtype(variable.dtype),
            name=f"{variable.name}_typical",
        )

    def check_manifold(self, variables):
        super().check_manifold(variables)
        if self.metric == "spectral":
            check_square(variables, 'SRGD(metric="spectral")')

    def correction_steps(self, place):
        return 1000

    def manifold_step(self, place, variable, gradient, learning_rate):
        value = ops.convert_to_tensor(variable)
        dtype = working_dtype(value.dtype)
        typical = self._typical[place]
        old = ops.zeros((), dtype)
        if typical is not None:
            old = ops.convert_to_tensor(typical)

        def moved():
            by_blocks = self._constraints[place].by_blocks
            x, g = ops.cast(value, dtype), ops.cast(gradient, dtype)
            ahead = by_blocks(_direction, x, g)
            rate, usual = ops.cast(learning_rate, dtype), old
            if typical is not None:
                usual = root_mean(old, size(ahead))
                rate = rate * self._share(place, usual)
            new = by_blocks(lambda w, a: self._moved(w, a, rate), x, ahead)
            new = ops.cast(new, value.dtype)
            # Finite is not enough: what is no longer orthogonal is not kept.
            good = self._is_orthogonal(place, new)
            return (
                ops.where(good, new, value),
                ops.where(good, usual, old),
                good,
            )

        new, usual, good = ops.cond(
            all_finite([gradient]),
            moved,
            lambda: (value, old, ops.zeros((), "bool")),
        )
        self.assign(variable, new)
        if typical is not None:
            self.assign(typical, usual)
        return good

    def _share(self, place, usual):
        """What a direction is multiplied by, beside the learning rate."""
        matrices = self._constraints[place].matrices(
            trained_variables(self)[place]
        )
        columns = sum(min(matrix.shape) for matrix in matrices)
        count = ops.cast(self.iterations + 1, usual.dtype)
        root = ops.full((), math.sqrt(columns), usual.dtype)
        return quotient(root, corrected(usual, count))

    def _moved(self, x, ahead, rate):
        if x.shape[0] != x.shape[1]:
            return retract(x, shortened(-rate * ahead), self.retraction)
        if self.metric == "spectral":
            # The polar factor of a skew matrix is skew, but for rounding.
            turn = polar_factor(ahead)
            ahead = (turn - ops.transpose(turn)) / 2
        return retract_skew(x, shortened(rate * ahead), self.retraction)

    def get_config(self):
        return {
            **super().get_config(),
            "retraction": self.retraction,
            "metric": self.metric,
            "adaptive": self.adaptive,
        }


def _direction(x, g):
    """The gradient on the manifold: skew, in the frame of a square `x`."""
    if x.shape[0] != x.shape[1]:
        return riemannian_gradient(x, g)
    return skew_gradient(x, g) / 2


def check_square(variables, who):
    """Raises unless all variables are square matrices kept whole."""
    for variable in variables:
        shape = tuple(variable.shape)
        blocks = variable.constraint.settled(variable).blocks
        if len(shape) != 2 or shape[0] != shape[1] or blocks != 1:
            raise ValueError(
                f"{who} moves square matrices. Expected shape (d, d) and one "
                f"block under `Orthogonal`, Received: {variable.path} of shape "
                f"{shape} with {blocks} blocks. `SRGD` with its default metric "
                "moves these, too"
            )


def _check_unused(optimizer, variables):
    """Raises if a Euclidean optimizer was built for other variables."""
    if not optimizer.built:
        return
    own = {id(v) for v in trained_variables(optimizer)}
    if own != {id(v) for v in variables}:
        raise ValueError(
            f"Argument `euclidean_optimizer` has variables already: "
            f"{optimizer.name} was used for another model, or beside another "
            "optimizer. Expected one that was not used, Received: "
            f"euclidean_optimizer={optimizer.name}"
        )


def _check_euclidean(optimizer, momentum):
    """Raises unless another optimizer can be given the other variables."""
    if optimizer is None:
        return
    if momentum:
        raise ValueError(
            "`momentum` is of SGD with the given `learning_rate`. Expected "
            "momentum=0 beside `euclidean_optimizer` and without a learning "
            f"rate, Received: momentum={momentum}"
        )
    kind = type(optimizer).__name__
    why = _NOT_ONE_BY_ONE.get(kind)
    if why is None and hasattr(optimizer, "joint_step"):
        why = "it looks at all gradients at once"
    if why is not None:
        raise ValueError(
            f"Argument `euclidean_optimizer` cannot be {kind}: {why}, and "
            "variables are given to it one by one. Expected another Keras "
            f"optimizer, Received: euclidean_optimizer={kind}"
        )
    for name in (
        "clipnorm",
        "global_clipnorm",
        "clipvalue",
        "use_ema",
        "loss_scale_factor",
        "gradient_accumulation_steps",
    ):
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"`{name}` concerns all variables: give it to the outer "
                f"optimizer. Received: euclidean_optimizer.{name}={value}"
            )


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
