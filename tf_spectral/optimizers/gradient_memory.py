"""What spectral descent remembers of gradients: averages, and of squares."""

from keras import ops

from tf_spectral.linalg.checks import working_dtype
from tf_spectral.optimizers.layer_steps import all_finite

PRECONDITIONERS = (None, "rms", "adagrad")


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
