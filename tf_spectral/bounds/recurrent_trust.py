"""The trust region of the recurrent kernel (math 5.8)."""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.bounds.recurrent_checks import OUTPUTS
from tf_spectral.bounds.recurrent_checks import checked_network
from tf_spectral.bounds.recurrent_checks import checked_size
from tf_spectral.bounds.recurrent_global import Norms
from tf_spectral.bounds.recurrent_global import largest_gradient
from tf_spectral.bounds.recurrent_global import region_constants

# Each round cuts the range of the logarithm of R by `_POINTS - 1`.
_POINTS = 64
_ROUNDS = {"float32": 5, "float64": 9}
_RANGE = 2.0**60


def rnn_trust_region(
    input_kernel,
    recurrent_kernel,
    output_kernel,
    x,
    gradient_norm,
    activation="tanh",
    initial_state=None,
    bias=None,
    outputs="all",
):
    """The radius of the best certified step of a recurrent kernel.

    `L_W(R)`, the rigorous constant of the recurrent kernel, holds for steps
    of spectral norm up to `R`. The certified decrease of a step along the
    polar factor of the gradient `G` is largest for the unique root of
    `R = ||G||_* / L_W(R)`. A step `-R Q(G)` lowers the loss by at least
    `R ||G||_* / 2`.

    Args:
        input_kernel: Floating tensor `(inputs, units)`.
        recurrent_kernel: Floating tensor `(units, units)`.
        output_kernel: Floating tensor `(units, classes)`.
        x: Tensor `(batch, steps, inputs)`.
        gradient_norm: Number or scalar tensor: the nuclear norm of the
            gradient of the loss by the recurrent kernel, see
            `linalg.norms.dual_norm`, or less.
        activation: See `rnn_lipschitz_constants`. Defaults to `"tanh"`.
        initial_state: Tensor `(units,)` or `(batch, units)`. Defaults to
            `None`, zeros.
        bias: Tensor `(units,)`. Defaults to `None`, zeros.
        outputs: `"all"` or `"last"`. Defaults to `"all"`.

    Returns:
        Scalar tensor, the radius from below; zero where the constant
        overflows at every radius worth a step.

    Raises:
        ValueError: If an argument is unknown, negative or of a wrong shape.

    Example:

    >>> import keras
    >>> from tf_spectral.bounds import rnn_lipschitz_constants
    >>> from tf_spectral.bounds import rnn_trust_region
    >>> one = keras.ops.ones((1, 1))
    >>> x = keras.ops.ones((1, 3, 1))
    >>> radius = rnn_trust_region(one, one, one, x, gradient_norm=0.5)
    >>> constants = rnn_lipschitz_constants(
    ...     one, one, one, x, tier="global", radius=radius
    ... )
    >>> round(float(radius * constants["recurrent"]), 4)
    0.5

    Reference: Liu, Hsieh and Cevher, "A novel optimization method for
    recurrent neural network by non-Euclidean geometry", with a trust region.
    """
    checks.choice("outputs", outputs, OUTPUTS)
    network, x = checked_network(
        input_kernel,
        recurrent_kernel,
        output_kernel,
        x,
        activation,
        initial_state,
        bias,
    )
    size = checked_size("gradient_norm", gradient_norm, x.dtype)
    return best_radius(Norms(network, x), size, outputs)


def default_radius(network, x, outputs):
    """A radius that no certified step leaves, whatever the labels are.

    It is the best radius for the largest gradient that the network can have.
    A smaller gradient divided by `L_W(R)` is a step inside it.
    """
    norms = Norms(network, x)
    return best_radius(norms, largest_gradient(norms, outputs), outputs)


def best_radius(norms, size, outputs):
    """The root of `R L_W(R) = size`, from below.

    Bisection, with many points at once: the left side grows with `R`.
    """
    still = region_constants(norms, ops.zeros((1,), size.dtype), outputs)[0]
    grid = ops.linspace(0.0, 1.0, _POINTS, dtype=size.dtype)
    high = size / still
    low = ops.where(ops.isfinite(high), high / _RANGE, ops.zeros_like(high))
    rounds = _ROUNDS[backend.standardize_dtype(size.dtype)]

    def narrow(_, carry):
        low, width = carry
        radii = low * ops.exp(width * grid)
        inside = radii * region_constants(norms, radii, outputs) <= size
        low = ops.max(ops.where(inside, radii, ops.zeros_like(radii)))
        return low, width / (_POINTS - 1)

    width = ops.full_like(low, math.log(_RANGE))
    return ops.fori_loop(0, rounds, narrow, (low, width))[0]
