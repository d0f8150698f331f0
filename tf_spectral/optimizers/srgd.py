"""SRGD: stochastic Riemannian gradient descent on orthogonal weights."""

import keras
from keras import ops

from tf_spectral import checks
from tf_spectral.linalg.checks import working_dtype
from tf_spectral.linalg.orthogonal import riemannian_gradient
from tf_spectral.linalg.orthogonal import skew_gradient
from tf_spectral.linalg.polar import polar_factor
from tf_spectral.linalg.retractions import METHODS
from tf_spectral.linalg.retractions import retract
from tf_spectral.linalg.retractions import retract_skew
from tf_spectral.linalg.retractions import shortened
from tf_spectral.optimizers import requirements
from tf_spectral.optimizers.layer_steps import all_finite
from tf_spectral.optimizers.riemannian import RiemannianOptimizer

METRICS = ("frobenius", "spectral")


@keras.saving.register_keras_serializable("tf_spectral")
class SRGD(RiemannianOptimizer):
    """Gradient descent along the orthogonal group.

    Each variable under `tf_spectral.constraints.Orthogonal`, square or
    rectangular, takes a step against its Riemannian gradient and is led back
    to the manifold by a retraction. No step turns by more than half a turn,
    however large the gradient. All other variables are left to a
    Euclidean optimizer.

    Args:
        learning_rate: Float, a schedule, or a callable. Defaults to `2e-4`.
        retraction: `"expm"` (the geodesic), `"cayley"`, `"qr"` or `"polar"`.
            Defaults to `"expm"`.
        metric: `"frobenius"`: the step is the gradient. `"spectral"`, for
            square variables: steepest descent in the spectral norm, a step
            that turns every plane of the gradient by the angle
            `learning_rate`. Defaults to `"frobenius"`.
        euclidean_optimizer: Keras optimizer for the variables without the
            constraint, with a learning rate of its own; its state is saved
            with this one's. Defaults to SGD with `learning_rate`.
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
    >>> model.compile(SRGD(0.01, euclidean_optimizer="adam"), "mse")

    Reference: Massart and Abrol, "Coordinate descent on the orthogonal group
    for recurrent neural network training", 2022; for the spectral metric
    Bernstein et al., "Modular duality in deep learning", 2024.
    """

    def __init__(
        self,
        learning_rate=2e-4,
        retraction="expm",
        metric="frobenius",
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

    def check_manifold(self, variables):
        super().check_manifold(variables)
        if self.metric == "spectral":
            requirements.check_square(variables, 'SRGD(metric="spectral")')

    def correction_steps(self, place):
        return 1000

    def manifold_step(self, place, variable, gradient, learning_rate):
        value = ops.convert_to_tensor(variable)

        def moved():
            new = self._constraints[place].by_blocks(
                lambda w, g: self._moved(w, g, learning_rate), value, gradient
            )
            # Finite is not enough: what is no longer orthogonal is not kept.
            good = self._is_orthogonal(place, new)
            return ops.where(good, new, value), good

        new, good = ops.cond(
            all_finite([gradient]),
            moved,
            lambda: (value, ops.zeros((), "bool")),
        )
        self.assign(variable, new)
        return good

    def _moved(self, w, g, rate):
        dtype = working_dtype(w.dtype)
        x, g = ops.cast(w, dtype), ops.cast(g, dtype)
        rate = ops.cast(rate, dtype)
        if w.shape[0] != w.shape[1]:
            tangent = shortened(-rate * riemannian_gradient(x, g))
            return ops.cast(retract(x, tangent, self.retraction), w.dtype)
        s = skew_gradient(x, g)
        if self.metric == "spectral":
            # The polar factor of a skew matrix is skew, but for rounding.
            turn = polar_factor(s)
            a = rate / 2 * (turn - ops.transpose(turn))
        else:
            a = rate / 2 * s
        new = retract_skew(x, shortened(a), self.retraction)
        return ops.cast(new, w.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "retraction": self.retraction,
            "metric": self.metric,
        }
