"""SpectralDescent: steps along the sharp operator, of certified length."""

import math
import warnings

import keras
import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.backend.keras_internals import trained_variables
from tf_spectral.backend.precision import working_dtype
from tf_spectral.optimizers.base import all_finite
from tf_spectral.optimizers.base import path_of
from tf_spectral.optimizers.block_descent import BlockDescent
from tf_spectral.optimizers.curvature import Curvature
from tf_spectral.optimizers.curvature import Known
from tf_spectral.optimizers.curvature import Slot
from tf_spectral.optimizers.weight_values import BOUND
from tf_spectral.optimizers.weight_values import checked_values
from tf_spectral.optimizers.weight_values import values_by_weight

PRECONDITIONERS = (None, "rms", "adagrad")


@keras.saving.register_keras_serializable("tf_spectral")
class SpectralDescent(BlockDescent):
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
            another, `"random"` one at random, `"greedy"` the one with the
            largest `||G||_*^2 / L`. Defaults to `"all"`.
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
        seed: Integer, for `selection="random"`. Defaults to a random one.
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
        seed=None,
        name=None,
        **kwargs,
    ):
        preconditioner = checks.choice(
            "preconditioner", preconditioner, PRECONDITIONERS
        )
        lipschitz = checked_values("lipschitz", lipschitz, measurable=True)
        if radius is not None:
            radius = checked_values("radius", radius)
        _check_metric(preconditioner, lipschitz, radius)
        super().__init__(
            learning_rate,
            2,
            selection,
            polar_accuracy,
            seed,
            name=name,
            **kwargs,
        )
        self.lipschitz = lipschitz
        self.preconditioner = preconditioner
        self.momentum = checks.fraction("momentum", momentum)
        self.radius = radius
        self.rho = checks.fraction("rho", rho)
        self.epsilon = checks.positive("epsilon", epsilon)
        self._warned = False

    def build(self, variables):
        if self.built or not variables:
            return
        super().build(variables)
        self._averages = self._squares = None
        if self.momentum:
            self._averages = self._memories("average")
        if self.preconditioner is not None:
            self._squares = self._memories("squares")

    def _memories(self, name):
        return [
            self._add(f"{name}_{i}", v.shape, working_dtype(v.dtype))
            for i, v in enumerate(trained_variables(self))
        ]

    def make_curvature(self, variables):
        self._paths = [path_of(v) for v in variables]
        given = values_by_weight("lipschitz", self.lipschitz, self._paths)
        self._longest = values_by_weight(
            "radius", self.radius or {}, self._paths, math.inf
        )
        self._measured = [i for i, v in enumerate(given) if v == BOUND]
        return GivenCurvature(
            [math.nan if v == BOUND else v for v in given],
            self._longest,
            self._dtype,
        )

    @property
    def constants(self):
        """Variable `(n,)`, `L` of each trainable variable or NaN."""
        return self._values["constants"]

    @property
    def radii(self):
        """Variable `(n,)`, the longest step of each trainable variable."""
        return self._values["radii"]

    @property
    def measured_weights(self):
        """Places of the trainable variables whose constant is `"bound"`."""
        return list(self._measured)

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
        for place, value in constants.items():
            if not value > 0:
                raise ValueError(
                    "Lipschitz constants must be positive. Received: "
                    f"{value} for {self._paths[place]}"
                )
        lengths = {
            place: min(value, self._longest[place])
            for place, value in (radii or {}).items()
        }
        self.constants.assign(_changed(self.constants, constants))
        self.radii.assign(_changed(self.radii, lengths))

    def remember(self, blocks):
        averages = squares = [None] * len(blocks)
        if self._averages is not None:
            averages = [
                _average(ops.convert_to_tensor(old), new, self.momentum)
                for old, new in zip(self._averages, blocks)
            ]
        if self._squares is not None:
            decay = self.rho if self.preconditioner == "rms" else None
            squares = [
                _mean_square(ops.convert_to_tensor(old), new, decay)
                for old, new in zip(self._squares, blocks)
            ]
        finite = all_finite([*blocks, *squares])
        self._assign_if(finite, self._averages, averages)
        self._assign_if(finite, self._squares, squares)
        metrics = [metric(v, self.epsilon) for v in squares]
        blocks = [g if m is None else m for g, m in zip(blocks, averages)]
        blocks = [g if a is None else g / a for g, a in zip(blocks, metrics)]
        return blocks, metrics, finite

    def _assign_if(self, finite, memories, values):
        for memory, value in zip(memories or (), values):
            if value is not None:
                old = ops.convert_to_tensor(memory)
                memory.assign(ops.where(finite, value, old))

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        self._warn_of_unset()

    def _warn_of_unset(self):
        """Says once which weights have no constant and therefore stay."""
        unset = np.isnan(ops.convert_to_numpy(self.constants))
        if self._warned or not unset.any():
            return
        self._warned = True
        paths = [path for path, no in zip(self._paths, unset) if no]
        warnings.warn(
            f"{self.name} leaves these weights as they are because they have "
            f"no Lipschitz constants: {paths}. Add "
            "`tf_spectral.callbacks.LipschitzEstimator` to the callbacks of "
            "`fit`, or give numbers as `lipschitz`.",
            stacklevel=4,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "lipschitz": _plain(self.lipschitz),
            "preconditioner": self.preconditioner,
            "momentum": self.momentum,
            "radius": _plain(self.radius),
            "rho": self.rho,
            "epsilon": self.epsilon,
        }


class GivenCurvature(Curvature):
    """Lipschitz constants that were given, or are set as training goes on.

    Args:
        constants: List of `n` numbers, NaN where a constant is not yet set.
        radii: List of `n` numbers, the longest step of each block.
        dtype: `"float32"` or `"float64"`.
    """

    def __init__(self, constants, radii, dtype):
        n = (len(constants),)
        self._slots = {
            "constants": Slot(n, dtype, constants),
            "radii": Slot(n, dtype, radii),
        }

    def slots(self):
        return self._slots

    def measure(self, values, gradients, weights, step):
        constants = values["constants"]
        inf = ops.full_like(constants, math.inf)
        # A block whose constant is not known stays.
        constants = ops.where(ops.isnan(constants), inf, constants)
        return Known(constants, values["radii"])


def metric(squares, epsilon):
    """The weights `A = sqrt(epsilon + sqrt(v))` of the norm `||A * D||`.

    Math 5.8, after Carlson et al., "Preconditioned spectral descent for deep
    learning", 2015.
    """
    return None if squares is None else ops.sqrt(epsilon + ops.sqrt(squares))


def _average(old, new, decay):
    """`decay * old + (1 - decay) * new`, a step of a moving average."""
    return None if new is None else decay * old + (1 - decay) * new


def _mean_square(old, new, decay):
    """A step of the moving average of squares, or of their sum."""
    if new is None:
        return None
    square = new * new
    return old + square if decay is None else _average(old, square, decay)


def _changed(variable, changes):
    values = np.array(ops.convert_to_numpy(variable))
    for place, value in changes.items():
        values[place] = value
    return values


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
