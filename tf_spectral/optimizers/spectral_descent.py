"""SpectralDescent: steps along the sharp operator, measured or certified."""

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
from tf_spectral.optimizers.measured_curvature import MeasuredCurvature
from tf_spectral.optimizers.measured_steps import Settings
from tf_spectral.optimizers.preconditioner import Preconditioner
from tf_spectral.optimizers.slices import checked_blocks
from tf_spectral.optimizers.weight_values import BOUND
from tf_spectral.optimizers.weight_values import MEASURED
from tf_spectral.optimizers.weight_values import checked_values
from tf_spectral.optimizers.weight_values import values_by_weight

PRECONDITIONERS = (None, "rms", "adagrad")


@keras.saving.register_keras_serializable("tf_spectral")
class SpectralDescent(BlockDescent):
    """Spectral descent: the steepest step by the spectral norm, over `L`.

    The step

        kernel <- kernel - learning_rate / L * ||G||_* polar(G)

    has the gradient `G`, its nuclear norm `||G||_*` and its polar factor
    `polar(G)`. `L` is the curvature of the loss in the kernel, in the spectral
    norm. It is measured along the training: nothing is to be tuned. Or it is
    a bound: then the step with the full gradient lowers the loss by at least
    `||G||_*^2 / (2 L)` for `learning_rate=1`. Kernels of any rank count as
    matrices `(inputs, outputs)`; vectors and scalars step along `G`.

    Args:
        learning_rate: Float, a schedule, or a callable: `1.0` is the step as
            measured, or the theory's. Defaults to `1.0`.
        lipschitz: The constants `L`. `"measured"` takes the steps of
            `tf_spectral.optimizers.DSGD`, whose length is measured at the
            steps before: `||G||_* / L` is a share of the kernel's own norm.
            They are not certified. A positive number is the constant of all
            weights; a dict has them by weight: its keys are names or ends of
            paths (`"recurrent_kernel"`, `"head/kernel"`; the longer one wins)
            and `"default"`. `"bound"`, as a whole or in a dict, leaves
            them to `tf_spectral.callbacks.LipschitzEstimator`; until it has
            set them their weights stay, and a warning follows. Where a
            constant is infinite the weight stays. Defaults to `"measured"`.
        selection: `"all"` moves all weights in each step, which is not
            covered by constants of one weight each; `"cyclic"` one after
            another, `"random"` one at random, `"greedy"` the one with the
            largest `||G||_*^2 / L`. Defaults to `"all"`.
        preconditioner: `None`, or `"rms"` or `"adagrad"` for RMSspectral and
            ADAspectral: the step `polar(G / A) / A`, elementwise, with
            `A = sqrt(epsilon + sqrt(v))` of squared gradients `v`, averaged or
            summed. Measured steps are as long as without. Other constants
            then belong to the norm `||A * step||` and are not known: give a
            number and tune the learning rate. Defaults to `None`.
        momentum: Float in [0, 1). The step is made from the average
            `m <- momentum * m + (1 - momentum) * G`; a measured one looks
            ahead as Nesterov's. Averaging gradients, not steps, keeps each
            step as short as its constant and `radius` ask for, and lets noise
            cancel before the polar factor, which does not shrink it. Defaults
            to `None`: `0.9` with measured steps, else `0.0`.
        radius: `None`, or a positive number or a dict by weight: no step is
            longer, in the norm of the weight (a trust region, in which a
            constant may be valid). Not beside a preconditioner or measured
            steps; greedy choices leave it aside. Defaults to `None`.
        blocks: For measured steps, what the matrices of a weight are where
            its name does not tell, see `tf_spectral.optimizers.DSGD`.
            Defaults to `None`.
        rho: Float in [0, 1), the decay of `"rms"`. Defaults to `0.95`.
        epsilon: Positive float, see `preconditioner`. Defaults to `1e-8`.
        polar_accuracy: `"standard"`, `"fast"` or `"exact"`, see
            `tf_spectral.optimizers.DSGD`. Defaults to `None`: `"fast"` with
            measured steps, else `"standard"`.
        seed: Integer, for `selection="random"`. Defaults to a random one.
        **kwargs: Those of every Keras optimizer. `clipnorm` is refused with
            greedy selection: it makes all norms equal. With measured steps
            `weight_decay` is multiplied by their length.

    Attributes:
        constants: Variable `(n,)`, `L` of each trainable variable, NaN
            where it is not set. Not of measured steps.
        radii: Variable `(n,)`, the longest step of each. Not of measured
            steps.
        step_length: Variable, of measured steps: the share of its own norm
            by which a weight moves at most.
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
    >>> model.compile(SpectralDescent(), "sparse_categorical_crossentropy")
    >>> _ = model.fit(x, y, verbose=0)
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
        lipschitz=MEASURED,
        selection="all",
        preconditioner=None,
        momentum=None,
        radius=None,
        blocks=None,
        rho=0.95,
        epsilon=1e-8,
        polar_accuracy=None,
        seed=None,
        name=None,
        **kwargs,
    ):
        if "norm" in kwargs:
            raise ValueError(
                "Spectral descent has one norm, 2; `DSGD` has others. Expected "
                f"no argument `norm`, Received: norm={kwargs['norm']!r}"
            )
        preconditioner = checks.choice(
            "preconditioner", preconditioner, PRECONDITIONERS
        )
        lipschitz = checked_values("lipschitz", lipschitz, measurable=True)
        measured = lipschitz == MEASURED
        if radius is not None:
            radius = checked_values("radius", radius)
        blocks = checked_blocks(blocks)
        _check_kind(preconditioner, lipschitz, radius, blocks)
        if momentum is None:
            momentum = 0.9 if measured else 0.0
        if polar_accuracy is None:
            polar_accuracy = "fast" if measured else "standard"
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
        self.blocks = blocks
        self.rho = checks.fraction("rho", rho)
        self.epsilon = checks.positive("epsilon", epsilon)
        self._warned = False

    def build(self, variables):
        if self.built or not variables:
            return
        super().build(variables)
        self._averages = self._squares = None
        if self.measures:
            # It keeps its own.
            return
        if self.momentum:
            self._averages = self._memories("average")
        if self.preconditioner is not None:
            self._squares = self._memories("squares")

    def _memories(self, name):
        return [
            self._add(f"{name}_{i}", v.shape, working_dtype(v.dtype))
            for i, v in enumerate(trained_variables(self))
        ]

    def _metric(self):
        if self.preconditioner is None:
            return None
        decay = self.rho if self.preconditioner == "rms" else None
        return Preconditioner(decay, self.epsilon)

    def make_curvature(self, variables):
        self._paths = [path_of(v) for v in variables]
        if self.lipschitz == MEASURED:
            settings = Settings(
                2, self.momentum, self.polar_accuracy, self._metric()
            )
            return MeasuredCurvature(
                variables, self._paths, settings, self.blocks, self._dtype
            )
        given = values_by_weight("lipschitz", self.lipschitz, self._paths)
        self._longest = values_by_weight(
            "radius", self.radius or {}, self._paths, math.inf
        )
        self._bounded = [i for i, v in enumerate(given) if v == BOUND]
        return GivenCurvature(
            [math.nan if v == BOUND else v for v in given],
            self._longest,
            self._dtype,
        )

    @property
    def constants(self):
        """Variable `(n,)`, `L` of each trainable variable or NaN."""
        return self._value("constants")

    @property
    def radii(self):
        """Variable `(n,)`, the longest step of each trainable variable."""
        return self._value("radii")

    def _value(self, name):
        if not self.built or self.measures:
            raise AttributeError(
                f"`{name}` are of steps that are not measured, once they are "
                'built. Expected lipschitz="bound", a number or a dict, '
                f"Received: lipschitz={self.lipschitz!r}, built={self.built}"
            )
        return self._values[name]

    @property
    def bounded_weights(self):
        """Places of the trainable variables whose constant is `"bound"`."""
        return [] if self.measures else list(self._bounded)

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
        metric = self._metric()
        averages = squares = [None] * len(blocks)
        if self._averages is not None:
            averages = [
                None if new is None else self._average(old, new)
                for old, new in zip(self._averages, blocks)
            ]
        if self._squares is not None:
            squares = [
                None
                if new is None
                else metric.squares(ops.convert_to_tensor(old), new)
                for old, new in zip(self._squares, blocks)
            ]
        finite = all_finite([*blocks, *squares])
        self._assign_if(finite, self._averages, averages)
        self._assign_if(finite, self._squares, squares)
        blocks = [g if m is None else m for g, m in zip(blocks, averages)]
        metrics = [None if v is None else metric.weights(v) for v in squares]
        blocks = [g if a is None else g / a for g, a in zip(blocks, metrics)]
        return blocks, metrics, finite

    def _average(self, old, new):
        old = ops.convert_to_tensor(old)
        return self.momentum * old + (1 - self.momentum) * new

    def _assign_if(self, finite, memories, values):
        for memory, value in zip(memories or (), values):
            if value is not None:
                old = ops.convert_to_tensor(memory)
                memory.assign(ops.where(finite, value, old))

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        if not self.measures:
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
            "blocks": _plain(self.blocks),
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


def _changed(variable, changes):
    values = np.array(ops.convert_to_numpy(variable))
    for place, value in changes.items():
        values[place] = value
    return values


def _plain(value):
    # Keras wraps dicts that are attributes.
    return dict(value) if isinstance(value, dict) else value


def _check_kind(preconditioner, lipschitz, radius, blocks):
    """Raises if an argument means nothing for steps of this kind."""
    measured = lipschitz == MEASURED
    if blocks and not measured:
        raise ValueError(
            "Argument `blocks` is of measured steps. Expected blocks=None, or "
            f'lipschitz="measured", Received: blocks={blocks}, '
            f"lipschitz={lipschitz!r}"
        )
    if radius is not None and (measured or preconditioner is not None):
        raise ValueError(
            "Argument `radius` bounds steps in the spectral norm, which a "
            "preconditioned step does not know, and a measured one is a share "
            "of the weight. Expected radius=None beside "
            f"preconditioner={preconditioner!r} and lipschitz={lipschitz!r}, "
            f"Received: radius={radius!r}"
        )
    values = lipschitz.values() if isinstance(lipschitz, dict) else [lipschitz]
    if preconditioner is not None and BOUND in values:
        raise ValueError(
            "Constants of the spectral norm say nothing of a preconditioned "
            'step. Expected lipschitz="measured", or numbers such as '
            f"lipschitz=1.0, beside preconditioner={preconditioner!r}, "
            f"Received: lipschitz={lipschitz!r}"
        )
