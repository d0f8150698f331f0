"""CertifiedSteps: whether a step of each weight lowers a loss as promised."""

import math

import keras
import numpy as np
from keras import ops

from tf_spectral.callbacks.gradients import compiled_gradient
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.optimizers.layer_steps import chosen_spectral_steps

# What rounding of a loss hides, in float32 and in half precision.
_RESOLUTION, _HALF_RESOLUTION = 1e-6, 1e-2
_FALL = 2.0**-0.25
_MAX_DOUBLINGS = 40


class CertifiedSteps:
    """Gradients of a model's loss on a batch, and trials of steps.

    The loss is that of `compile` without regularization, the model runs as
    at inference.

    Args:
        model: Compiled and built Keras model.
        x: Inputs, one batch.
        y: Targets.
        accuracy: Key of `POLAR_ACCURACIES`, that of the optimizer.
    """

    def __init__(self, model, x, y, accuracy):
        self._model = model
        self._data = [ops.convert_to_tensor(x), ops.convert_to_tensor(y)]
        self._accuracy = accuracy
        self._variables = list(model.trainable_variables)
        self._ends = np.cumsum([math.prod(v.shape) for v in self._variables])
        dtypes = {working_dtype(v.dtype) for v in self._variables}
        self._dtype = "float64" if "float64" in dtypes else "float32"
        half = working_dtype(model.compute_dtype) != model.compute_dtype
        self._resolution = _HALF_RESOLUTION if half else _RESOLUTION
        loss = keras.losses.get(model.loss)
        others = list(model.non_trainable_variables)

        def energy(point, values, x, y):
            pairs = [*zip(self._variables, self._split(point))]
            pairs += zip(others, values)
            with keras.StatelessScope(state_mapping=pairs):
                outputs = model(x, training=False)
            return ops.cast(ops.mean(loss(y, outputs)), self._dtype)

        def scaled(factor, *arguments):
            return factor * energy(*arguments)

        self._others = others
        self._energy_gradient = compiled_gradient(energy, [])
        # The derivative by the factor is the energy.
        self._energy = compiled_gradient(scaled, [])

    def _split(self, point):
        return [
            ops.cast(ops.reshape(part, v.shape), v.dtype)
            for part, v in zip(
                ops.split(point, self._ends[:-1].tolist()), self._variables
            )
        ]

    def _arguments(self):
        values = [ops.convert_to_tensor(v) for v in self._others]
        return [values, *self._data]

    def refresh(self):
        """Reads the weights of the model; call before the others."""
        flat = [ops.reshape(v, (-1,)) for v in self._variables]
        flat = [ops.cast(part, self._dtype) for part in flat]
        self._point = ops.concatenate(flat)
        gradient = self._energy_gradient(self._point, *self._arguments())
        self._blocks = chosen_spectral_steps(
            self._split(gradient),
            ops.ones((len(self._variables),), dtype="bool"),
            self._accuracy,
            self._dtype,
        )
        self._start = self._loss(self._point)

    def dual_norm(self, place):
        """The nuclear, or Euclidean, norm of a weight's gradient."""
        return float(ops.convert_to_numpy(self._blocks.dual_norms[place]))

    def certified_factor(self, place, constant, factor, radius):
        """The factor of a constant with which a step keeps its promise.

        A step of the length `eta = min(radius, ||G||_* / L)` is to lower the
        loss by `eta ||G||_* / 4`, half of what a true constant `L` promises
        (math 5.7). A factor a little below the last one is doubled as long as
        its step does not.

        Args:
            place: Integer, which of the trainable variables.
            constant: Positive float, what the factor multiplies.
            factor: Positive float, the last one.
            radius: Positive float.

        Returns:
            Positive float; `factor` if rounding hides what would be seen.
        """
        dual = self.dual_norm(place)
        if not dual > 0 or not math.isfinite(constant * dual):
            return factor
        trial = factor * _FALL
        for count in range(_MAX_DOUBLINGS):
            length = min(radius, dual / (trial * constant))
            gain = length * dual / 4
            if not gain > self._resolution * abs(self._start):
                return trial if count else factor
            if self._loss(self._moved(place, length)) <= self._start - gain:
                return trial
            trial *= 2
        return trial

    def _moved(self, place, length):
        """The weights after a step of a length."""
        steps = self._blocks
        scale = length * steps.factors[place] / steps.dual_norms[place]
        step = ops.cast(steps.directions[place], self._dtype) * scale
        end = int(self._ends[place])
        start = end - math.prod(step.shape)
        # Numpy changes a part of it on every backend.
        point = np.array(ops.convert_to_numpy(self._point))
        point[start:end] -= ops.convert_to_numpy(step).ravel()
        return ops.convert_to_tensor(point)

    def _loss(self, point):
        one = ops.ones((), self._dtype)
        value = self._energy(one, point, *self._arguments())
        return float(ops.convert_to_numpy(value))
