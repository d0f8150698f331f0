"""BlockConstants: what an optimizer knows of the curvature in each weight."""

import math
import warnings
from typing import NamedTuple

import numpy as np
from keras import ops

from tf_spectral.optimizers.weight_values import BOUND
from tf_spectral.optimizers.weight_values import values_by_weight


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
