"""Curvature that is measured along the training, as a provider of it."""

import math
from typing import NamedTuple

from keras import ops

from tf_spectral.backend.precision import working_dtype
from tf_spectral.optimizers.base import all_finite
from tf_spectral.optimizers.curvature import Slot
from tf_spectral.optimizers.measured_steps import SHORTEST
from tf_spectral.optimizers.measured_steps import START
from tf_spectral.optimizers.measured_steps import Memory
from tf_spectral.optimizers.measured_steps import alignment
from tf_spectral.optimizers.measured_steps import first_memory
from tf_spectral.optimizers.measured_steps import next_length
from tf_spectral.optimizers.measured_steps import next_step
from tf_spectral.optimizers.slices import slices_of_all


class MeasuredSteps(NamedTuple):
    """A step of all blocks by `MeasuredCurvature`.

    Attributes:
        directions: List of tensors, or `None` where a block has no gradient.
        gains: Tensor `(n,)`, the derivatives of the loss along these.
        length: Scalar tensor, how far to go along them.
        memories: List of `measured_steps.Memory`, or `None`.
    """

    directions: list
    gains: object
    length: object
    memories: list

    def are_finite(self):
        """Whether they and what is kept of them are numbers."""
        squares = [None if m is None else m.squares for m in self.memories]
        return all_finite([self.gains, self.length, *squares])


class MeasuredCurvature:
    """What the steps before tell of the curvature, see `measured_steps`.

    As a `Curvature` it holds no variables.

    Args:
        variables: List of variables.
        paths: List of their paths.
        settings: `measured_steps.Settings`.
        blocks: See `slices.slices_of_all`.
        dtype: `"float32"` or `"float64"`.
    """

    def __init__(self, variables, paths, settings, blocks, dtype):
        self._dtype = dtype
        self._settings = settings
        self._slices = slices_of_all(variables, paths, blocks)
        # Where there is nothing to move there is nothing to keep.
        self._shapes = [
            tuple(v.shape) if math.prod(v.shape) else None for v in variables
        ]
        self._dtypes = [working_dtype(v.dtype) for v in variables]

    def slots(self):
        slots = {"length": Slot((), self._dtype, START)}
        for i, shape in enumerate(self._shapes):
            if shape is not None:
                first = first_memory(self._slices[i], shape, self._settings)
                for name, (shape, initial) in first.items():
                    slots[f"{name}_{i}"] = Slot(shape, self._dtypes[i], initial)
        return slots

    def steps(self, values, gradients, weights, step, rate):
        """The next steps of all blocks, and their length.

        Args:
            values: Dict of tensors, the values of the slots.
            gradients: List of tensors, or `None` where a block has none.
            weights: List of the variables.
            step: Integer scalar tensor, the number of the step.
            rate: Scalar tensor, the learning rate.

        Returns:
            `MeasuredSteps`.
        """
        memories = [self._memory(values, i) for i in range(len(gradients))]
        length = values["length"]
        zero = ops.zeros((), self._dtype)
        count = ops.cast(step, self._dtype)
        agreed = alignment(gradients, memories, self._slices, count)
        length = next_length(length, ops.cast(agreed, self._dtype), rate)
        directions, gains, kept = [], [], []
        for gradient, weight, memory, slices in zip(
            gradients, weights, memories, self._slices
        ):
            gain = zero
            if gradient is not None and memory is not None:
                memory, gain = next_step(
                    gradient,
                    ops.cast(ops.convert_to_tensor(weight), gradient.dtype),
                    memory,
                    slices,
                    ops.cast(step + 1, gradient.dtype),
                    self._settings,
                )
            else:
                memory = None
            directions.append(gradient if memory is None else memory.step)
            gains.append(ops.cast(gain, self._dtype))
            kept.append(memory)
        return MeasuredSteps(directions, ops.stack(gains), length, kept)

    def after(self, values, steps, chosen, finite):
        """New values of the slots, those before a step that is skipped.

        Args:
            values: Dict of tensors, as for `steps`.
            steps: `MeasuredSteps`.
            chosen: Boolean tensor `(n,)`, which blocks were to move.
            finite: Boolean scalar tensor, whether they did.
        """
        # What made numbers infinite was perhaps too long a step.
        shorter = ops.maximum(values["length"] / 2, SHORTEST)
        new = {"length": ops.where(finite, steps.length, shorter)}
        for i, memory in enumerate(steps.memories):
            if memory is None:
                continue
            step = ops.where(chosen[i], memory.step, 0 * memory.step)
            for name, value in memory._replace(step=step)._asdict().items():
                if value is not None:
                    old = values[f"{name}_{i}"]
                    new[f"{name}_{i}"] = ops.where(finite, value, old)
        return new

    def anew(self, weights):
        """Nothing that is kept depends on where weights are."""
        return {}

    def _memory(self, values, i):
        if self._shapes[i] is None:
            return None
        fields = {name: values.get(f"{name}_{i}") for name in Memory._fields}
        return Memory(**fields)
