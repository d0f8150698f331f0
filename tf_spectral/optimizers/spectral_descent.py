"""SpectralDescent: steps along the sharp operator, of certified length."""

import math
import warnings
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.precision import working_dtype
from tf_spectral.optimizers.base import JointOptimizer
from tf_spectral.optimizers.base import all_finite
from tf_spectral.optimizers.base import path_of
from tf_spectral.optimizers.base import warn_of_skipped_steps
from tf_spectral.optimizers.block_steps import POLAR_ACCURACIES
from tf_spectral.optimizers.block_steps import chosen_spectral_steps
from tf_spectral.optimizers.block_steps import greedy_spectral_steps
from tf_spectral.optimizers.block_steps import one_of
from tf_spectral.optimizers.weight_values import BOUND
from tf_spectral.optimizers.weight_values import checked_values
from tf_spectral.optimizers.weight_values import values_by_weight

SELECTIONS = ("greedy", "all", "cyclic")
PRECONDITIONERS = (None, "rms", "adagrad")


@keras.saving.register_keras_serializable("tf_spectral")
class SpectralDescent(JointOptimizer):
    """Spectral descent: the steepest step by the spectral norm, over `L`.

    With a bound `L` of the curvature of the loss in a kernel, measured in the
    spectral norm, the step

        kernel <- kernel - learning_rate / L * ||G||_* polar(G)

    lowers the loss by at least `||G||_*^2 / (2 L)` for `learning_rate=1`: `G`
    is the full gradient, `||G||_*` its nuclear norm and `polar(G)` its polar
    factor. Kernels of any rank count as matrices `(inputs, outputs)`; vectors
    and scalars step by `learning_rate / L * G`.

    Args:
        learning_rate: Float, a schedule, or a callable: the theory's step is
            `1.0`. Defaults to `1.0`.
        lipschitz: The constants `L`. A positive number is that of all
            weights; a dict has them by weight: its keys are names or ends of
            paths (`"recurrent_kernel"`, `"head/kernel"`; the longer one wins)
            and `"default"`. `"bound"`, as a whole or in a dict, leaves
            them to `tf_spectral.callbacks.LipschitzEstimator`; until it has
            set them their weights stay, and a warning follows. Where a
            constant is infinite the weight stays. Defaults to `"bound"`.
        selection: `"all"` moves all weights in each step, which is not
            covered by constants of one weight each; `"cyclic"` one after
            another, `"greedy"` the one with the largest `||G||_*^2 / L`.
            Defaults to `"all"`.
        preconditioner: `None`, or `"rms"` or `"adagrad"` for RMSspectral and
            ADAspectral: the step `polar(G / A) / A`, elementwise, with
            `A = sqrt(epsilon + sqrt(v))` of squared gradients `v`, averaged or
            summed. `L` then belongs to the norm `||A * step||` and is not
            known: give a number and tune the learning rate. Defaults to
            `None`.
        momentum: Float in [0, 1). The step is made from the average
            `m <- momentum * m + (1 - momentum) * G`. Averaging gradients, not
            steps, keeps each step as short as its constant and `radius` ask
            for, and lets noise cancel before the polar factor, which does
            not shrink it. Defaults to `0.0`.
        radius: `None`, or a positive number or a dict by weight: no step is
            longer, in the norm of the weight (a trust region, in which a
            constant may be valid). Not beside a preconditioner; greedy
            choices leave it aside. Defaults to `None`.
        rho: Float in [0, 1), the decay of `"rms"`. Defaults to `0.95`.
        epsilon: Positive float, see `preconditioner`. Defaults to `1e-8`.
        polar_accuracy: `"standard"`, `"fast"` or `"exact"`, see
            `tf_spectral.optimizers.DSGD`. Defaults to `"standard"`.
        **kwargs: Those of every Keras optimizer. `clipnorm` is refused with
            greedy selection: it makes all norms equal.

    Attributes:
        constants: Variable `(n,)`, `L` of each trainable variable, NaN
            where it is not set.
        radii: Variable `(n,)`, the longest step of each.
        skipped_steps: Variable, how many steps met a gradient with NaN or
            Inf, or too large to be squared. Such a step changes no weight and
            no average; a warning follows.

    Raises:
        ValueError: If an argument is not among the named; when the optimizer
            is built, if a name fits no weight or a weight has no constant.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.optimizers import SpectralDescent
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
    ... )
    >>> x, y = np.ones((8, 4), "float32"), np.zeros((8,), "int32")
    >>> # Rows of x have squared length 4, see `LipschitzEstimator`.
    >>> optimizer = SpectralDescent(lipschitz={"kernel": 4.0, "bias": 1.0})
    >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    >>> losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    >>> losses[0] > losses[1] > losses[2]
    True

    Reference: Carlson et al., "Preconditioned spectral descent for deep
    learning", 2015.
    """

    def __init__(
        self,
        learning_rate=1.0,
        lipschitz=BOUND,
        selection="all",
        preconditioner=None,
        momentum=0.0,
        radius=None,
        rho=0.95,
        epsilon=1e-8,
        polar_accuracy="standard",
        name=None,
        **kwargs,
    ):
        kwargs = checks.optimizer_options(kwargs)
        selection = checks.choice("selection", selection, SELECTIONS)
        preconditioner = checks.choice(
            "preconditioner", preconditioner, PRECONDITIONERS
        )
        lipschitz = checked_values("lipschitz", lipschitz, measurable=True)
        if radius is not None:
            radius = checked_values("radius", radius)
        _check_metric(preconditioner, lipschitz, radius)
        _check_clipnorm(selection, kwargs)
        super().__init__(learning_rate, name=name, **kwargs)
        self.lipschitz = lipschitz
        self.selection = selection
        self.preconditioner = preconditioner
        self.momentum = checks.fraction("momentum", momentum)
        self.radius = radius
        self.rho = checks.fraction("rho", rho)
        self.epsilon = checks.positive("epsilon", epsilon)
        self.polar_accuracy = checks.choice(
            "polar_accuracy", polar_accuracy, POLAR_ACCURACIES
        )

    def build(self, variables):
        # Keras' reader of `.h5` files first builds without any.
        if self.built or not variables:
            return
        given = given_values(self, [path_of(v) for v in variables])
        super().build(variables)
        variables = self._trainable_variables
        dtypes = {working_dtype(v.dtype) for v in variables}
        self._dtype = "float64" if dtypes == {"float64"} else "float32"
        self._blocks = BlockConstants(self, given, self._dtype)
        self._memory = GradientMemory(self, variables)
        self._scales = self._add("scales", (len(variables),), self._dtype)
        self.skipped_steps = self._add("skipped_steps", (), "int32")

    def _add(self, name, shape, dtype):
        return self.add_variable(
            shape, dtype=dtype, aggregation="only_first_replica", name=name
        )

    @property
    def constants(self):
        """Variable `(n,)`, `L` of each trainable variable or NaN."""
        return self._blocks.values

    @property
    def radii(self):
        """Variable `(n,)`, the longest step of each trainable variable."""
        return self._blocks.radii

    @property
    def measured_weights(self):
        """Places of the trainable variables whose constant is `"bound"`."""
        return list(self._blocks.measured)

    def set_constants(self, constants, radii=None):
        """Sets constants, and how far steps may go.

        Args:
            constants: Dict from places of trainable variables to positive
                numbers; infinity for no step.
            radii: The same of the longest steps; the argument `radius` may
                make them shorter. Defaults to none.

        Raises:
            ValueError: If a constant is not positive.
        """
        self._blocks.set(constants, radii or {})

    def joint_step(self, gradients, variables, learning_rate):
        places = [self._get_variable_index(v) for v in variables]
        blocks = [None] * len(self._trainable_variables)
        for place, gradient in zip(places, gradients):
            # Makes one tensor of an embedding's slices.
            shape = self._trainable_variables[place].shape
            gradient = ops.reshape(gradient, shape)
            blocks[place] = ops.cast(gradient, working_dtype(gradient.dtype))
        blocks, metrics, finite = self._memory.remember(blocks)
        constants = self._blocks.read()
        chosen, steps = self._choose(blocks, constants)
        rate = ops.cast(learning_rate, self._dtype)
        radii = ops.convert_to_tensor(self.radii)
        scales = step_scales(steps, rate, constants, radii)
        moved = ops.logical_and(chosen, finite)
        self._scales.assign(ops.where(moved, scales, ops.zeros_like(scales)))
        self.skipped_steps.assign_add(1 - ops.cast(finite, "int32"))
        return [
            steps.directions[i]
            if metrics[i] is None
            else steps.directions[i] / metrics[i]
            for i in places
        ]

    def _choose(self, blocks, constants):
        """The mask of weights to move, and their steps."""
        n = len(blocks)
        accuracy, dtype = self.polar_accuracy, self._dtype
        if self.selection == "greedy":
            roots = ops.sqrt(constants)
            steps = greedy_spectral_steps(
                blocks, ops.unstack(roots), accuracy, dtype
            )
            scores = ops.stack(steps.dual_norms) / roots
            return one_of(n, ops.argmax(scores)), steps
        if self.selection == "cyclic":
            chosen = one_of(n, self.iterations % n)
        else:
            chosen = ops.ones((n,), dtype="bool")
        return chosen, chosen_spectral_steps(blocks, chosen, accuracy, dtype)

    def update_step(self, gradient, variable, learning_rate):
        # The scale knows the learning rate.
        place = self._get_variable_index(variable)
        scale = ops.convert_to_tensor(self._scales)[place]
        self.assign_sub_if(
            scale > 0,
            variable,
            lambda: ops.cast(scale, gradient.dtype) * gradient,
        )

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        warn_of_skipped_steps(self)
        self._blocks.warn_of_unset(self.name)

    def get_config(self):
        return {
            **super().get_config(),
            "lipschitz": _plain(self.lipschitz),
            "selection": self.selection,
            "preconditioner": self.preconditioner,
            "momentum": self.momentum,
            "radius": _plain(self.radius),
            "rho": self.rho,
            "epsilon": self.epsilon,
            "polar_accuracy": self.polar_accuracy,
        }


def _plain(value):
    # Keras wraps dicts that are attributes.
    return dict(value) if isinstance(value, dict) else value


def _check_metric(preconditioner, lipschitz, radius):
    if preconditioner is not None and radius is not None:
        raise ValueError(
            "Argument `radius` bounds steps in the spectral norm, which a "
            "preconditioned step does not know. Expected radius=None beside "
            f"preconditioner={preconditioner!r}, Received: radius={radius!r}"
        )
    values = lipschitz.values() if isinstance(lipschitz, dict) else [lipschitz]
    if preconditioner is not None and BOUND in values:
        raise ValueError(
            "Constants of the spectral norm say nothing of a preconditioned "
            "step. Expected numbers such as lipschitz=1.0 beside "
            f"preconditioner={preconditioner!r}, Received: "
            f"lipschitz={lipschitz!r}"
        )


def _check_clipnorm(selection, options):
    if selection == "greedy" and options.get("clipnorm"):
        raise ValueError(
            "`clipnorm` gives all gradients the same norm, and greedy "
            "selection compares them. Expected clipnorm=None or another "
            "`selection`, or `global_clipnorm`, Received: "
            f"clipnorm={options['clipnorm']}"
        )


class GivenValues(NamedTuple):
    """The arguments of an optimizer by weight; lists of length `n`."""

    paths: list
    lipschitz: list
    radius: list


def given_values(optimizer, paths):
    """What the arguments `lipschitz` and `radius` say of each weight.

    Args:
        optimizer: `SpectralDescent`.
        paths: List of the paths of its trainable variables.

    Returns:
        `GivenValues`.

    Raises:
        ValueError: If an argument does not fit the paths.
    """
    return GivenValues(
        paths,
        values_by_weight("lipschitz", optimizer.lipschitz, paths),
        values_by_weight("radius", optimizer.radius or {}, paths, math.inf),
    )


class BlockConstants:
    """Lipschitz constants and longest steps of all weights, as variables.

    Args:
        optimizer: `SpectralDescent`, owns the variables.
        given: `GivenValues`.
        dtype: `"float32"` or `"float64"`.

    Attributes:
        values: Variable `(n,)`, NaN where a constant is not set.
        radii: Variable `(n,)`.
        measured: List of the places of constants that are to be measured.
    """

    def __init__(self, optimizer, given, dtype):
        self._given = given
        self.measured = [i for i, v in enumerate(given.lipschitz) if v == BOUND]
        numbers = [math.nan if v == BOUND else v for v in given.lipschitz]
        self.values = _variable(optimizer, "constants", numbers, dtype)
        self.radii = _variable(optimizer, "radii", given.radius, dtype)
        self._warned = False

    def read(self):
        """The constants as a tensor, infinite where they are not set."""
        values = ops.convert_to_tensor(self.values)
        inf = ops.full_like(values, math.inf)
        return ops.where(ops.isnan(values), inf, values)

    def set(self, constants, radii):
        """Changes some constants and radii; dicts by place."""
        for place, value in constants.items():
            if not value > 0:
                raise ValueError(
                    "Lipschitz constants must be positive. Received: "
                    f"{value} for {self._given.paths[place]}"
                )
        values = np.array(ops.convert_to_numpy(self.values))
        lengths = np.array(ops.convert_to_numpy(self.radii))
        for place, value in constants.items():
            values[place] = value
        for place, value in radii.items():
            lengths[place] = min(value, self._given.radius[place])
        self.values.assign(values)
        self.radii.assign(lengths)

    def warn_of_unset(self, name):
        """Tells once of weights that stay for want of a constant."""
        unset = np.isnan(ops.convert_to_numpy(self.values))
        if self._warned or not unset.any():
            return
        self._warned = True
        paths = [path for path, no in zip(self._given.paths, unset) if no]
        warnings.warn(
            f"{name} leaves these weights as they are, for want of their "
            f"Lipschitz constants: {paths}. Add "
            "`tf_spectral.callbacks.LipschitzEstimator` to the callbacks of "
            "`fit`, or give numbers as `lipschitz`.",
            stacklevel=4,
        )


def step_scales(steps, rate, constants, radii):
    """What each direction is multiplied by.

    A step has the length `min(radius, rate * ||G||_* / L)` (math 5.8).

    Args:
        steps: `LayerSteps` of `n` blocks.
        rate: Scalar, the learning rate.
        constants: Tensor `(n,)`.
        radii: Tensor `(n,)`.

    Returns:
        Tensor `(n,)`, zero where a constant is infinite.
    """
    rates = rate / constants
    lengths = rates * ops.stack(steps.dual_norms)
    ones = ops.ones_like(lengths)
    shares = ops.where(lengths > radii, radii / lengths, ones)
    scales = rates * ops.stack(steps.factors) * shares
    return ops.where(ops.isfinite(scales), scales, ops.zeros_like(scales))


def _variable(optimizer, name, values, dtype):
    array = np.array(values, dtype)
    return optimizer.add_variable(
        array.shape,
        # Called where the variable is made, maybe out of an open graph.
        initializer=lambda shape, dtype: ops.convert_to_tensor(array),
        dtype=dtype,
        aggregation="only_first_replica",
        name=name,
    )


class GradientMemory:
    """Averages of gradients and of their squares, as far as settings ask.

    Args:
        optimizer: `SpectralDescent`, gives the settings and owns the
            variables.
        variables: List of the trainable variables.
    """

    def __init__(self, optimizer, variables):
        self._settings = optimizer
        self._averages, self._squares = {}, {}
        if optimizer.momentum:
            self._averages = self._slots("average", variables)
        if optimizer.preconditioner is not None:
            self._squares = self._slots("squares", variables)

    def _slots(self, name, variables):
        return {
            i: self._settings.add_variable(
                v.shape,
                dtype=working_dtype(v.dtype),
                # Every replica remembers the same: the sum over them.
                aggregation="only_first_replica",
                name=f"{name}_{i}",
            )
            for i, v in enumerate(variables)
        }

    def remember(self, gradients):
        """Takes in new gradients, unless one is not finite.

        Args:
            gradients: List of tensors, or `None` where a weight has none.

        Returns:
            Tuple of the list of what to step along, the list of metrics or
            `None`s, and a boolean scalar: whether gradients, and squares of
            them that are kept, are finite.
        """
        settings = self._settings
        averages, squares = {}, {}
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            if self._averages:
                old = ops.convert_to_tensor(self._averages[i])
                averages[i] = averaged(old, gradient, settings.momentum)
            if self._squares:
                old = ops.convert_to_tensor(self._squares[i])
                squares[i] = _squares(
                    old, gradient, settings.preconditioner, settings.rho
                )
        finite = all_finite([*gradients, *squares.values()])
        self._keep(self._averages, averages, finite)
        self._keep(self._squares, squares, finite)
        metrics = [
            metric(squares[i], settings.epsilon) if i in squares else None
            for i in range(len(gradients))
        ]
        blocks = [
            averages.get(i, g) if a is None else averages.get(i, g) / a
            for i, (g, a) in enumerate(zip(gradients, metrics))
        ]
        return blocks, metrics, finite

    def _keep(self, slots, news, finite):
        for i, new in news.items():
            old = ops.convert_to_tensor(slots[i])
            slots[i].assign(ops.where(finite, new, old))


def averaged(old, new, decay):
    """`decay * old + (1 - decay) * new`, a step of a moving average."""
    return decay * old + (1 - decay) * new


def metric(squares, epsilon):
    """The weights `A = sqrt(epsilon + sqrt(v))` of the norm `||A * D||`.

    Math 5.8, after Carlson et al., "Preconditioned spectral descent for deep
    learning", 2015.
    """
    return ops.sqrt(epsilon + ops.sqrt(squares))


def _squares(old, gradient, preconditioner, rho):
    new = gradient * gradient
    return averaged(old, new, rho) if preconditioner == "rms" else old + new
