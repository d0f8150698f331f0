"""Spectral descent once more, in float64 NumPy, written from math 5.8."""

import numpy as np

from tests import oracles_norms


class SpectralDescent:
    """One weight after another, by loops and singular value decompositions.

    `constants` and `radii` are lists of numbers, one for each weight.
    """

    def __init__(
        self,
        constants,
        learning_rate=1.0,
        selection="all",
        preconditioner=None,
        momentum=0.0,
        radii=None,
        rho=0.95,
        epsilon=1e-8,
    ):
        self.constants, self.rate = constants, learning_rate
        self.selection = selection
        self.preconditioner, self.momentum = preconditioner, momentum
        self.radii = radii or [np.inf] * len(constants)
        self.rho, self.epsilon = rho, epsilon
        self.count, self.averages, self.squares = 0, None, None

    def steps(self, gradients):
        """What is subtracted from each weight."""
        gradients = [np.asarray(g, "float64") for g in gradients]
        if self.averages is None:
            self.averages = [0 * g for g in gradients]
            self.squares = [0 * g for g in gradients]
        along, steps = [], []
        for i, g in enumerate(gradients):
            a = 1 + 0 * g
            if self.preconditioner == "rms":
                self.squares[i] = self.rho * self.squares[i]
                self.squares[i] = self.squares[i] + (1 - self.rho) * g**2
            elif self.preconditioner == "adagrad":
                self.squares[i] = self.squares[i] + g**2
            if self.preconditioner:
                a = np.sqrt(self.epsilon + np.sqrt(self.squares[i]))
            self.averages[i] = self.momentum * self.averages[i]
            self.averages[i] = self.averages[i] + (1 - self.momentum) * g
            along.append(self.averages[i] / a)
            steps.append(self.step(i, along[i]) / a)
        chosen = range(len(steps))
        if self.selection == "cyclic":
            chosen = [self.count % len(steps)]
        if self.selection == "greedy":
            scores = [
                oracles_norms.dual_norm(x, 2) ** 2 / constant
                for x, constant in zip(along, self.constants)
            ]
            chosen = [int(np.argmax(scores))]
        self.count += 1
        return [s if i in chosen else 0 * s for i, s in enumerate(steps)]

    def step(self, i, x):
        """`min(R, rate ||x||_* / L)` along the polar factor of `x`."""
        if x.ndim < 2:
            size = np.sqrt(np.sum(x**2))
            direction = x / size if size else x
        else:
            size = oracles_norms.dual_norm(x, 2)
            matrix = oracles_norms.as_matrix(x)
            direction = oracles_norms.polar_factor(matrix).reshape(x.shape)
        length = self.rate * size / self.constants[i]
        return min(self.radii[i], length) * direction
