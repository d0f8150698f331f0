"""Steps whose lengths are measured along the training: pure functions.

A bound of the curvature that holds for every data set is far above what a
training meets, and its steps are as much too short. Here the steps of all
slices of all weights (`slices`) share one length `c`, relative to the norms of
what they move, and `c` grows while each new gradient still agrees with the
step before and shrinks where it does not:

    step      s_i = R_i snr_i d(n_i)        w_i <- w_i - rate c s_i
    alignment h   = sum_i <g_i, s_i'> / v_i / sum_i |s_i'|
    length    c  <- c exp(KAPPA rate^2 h)

`n` is a momentum as Nesterov looks ahead with it, `d` its duality map of norm
one, `R` the norm of the slice, or its floor, `v` the length of a typical
gradient, `snr` that of `n` over it, at most one; `s'` is the step before. In
the words of duality structure gradient descent
`1 / p_i^2 = c R_i / (typical dual norm)`: the same method with `p_i` measured,
and not certified (math 4.9).

The rule for `c` is the hypergradient descent of Baydin et al., "Online
learning rate adaptation with hypergradient descent", 2018, in the norms of the
layers, as a factor; norms relative to shapes after Bernstein and Newhouse,
"Modular duality in deep learning", 2024.
"""

from typing import NamedTuple

import numpy as np
from keras import ops

from tf_spectral.linalg.polar import safe_divisor
from tf_spectral.linalg.polar import scaled_down
from tf_spectral.optimizers.slices import directions
from tf_spectral.optimizers.slices import lengths
from tf_spectral.optimizers.slices import power_step
from tf_spectral.optimizers.slices import unit
from tf_spectral.optimizers.typical import corrected
from tf_spectral.optimizers.typical import quotient
from tf_spectral.optimizers.typical import root_mean
from tf_spectral.optimizers.typical import size

# This and the start were chosen in trials on small tasks, see docs/dsgd.md.
KAPPA = 0.3
START = 0.01
# Nothing moves by more of its norm than the latter: a weight that grows in
# proportion to itself is soon out of sight. The former is short enough for ten
# layers, and not so short that nothing is learned or measured any more: where
# an epoch has few batches, each is against those before it, and c shrinks with
# no need.
SHORTEST, LONGEST = START / 10, START * 10


class Memory(NamedTuple):
    """What is kept of one weight from step to step.

    Attributes:
        average: Tensor of the shape of the weight, the momentum.
        step: Tensor of that shape, the last step `s`.
        typical: Tensor `(count,)`, the root mean square of the lengths of
            gradients.
        vector: Tensor `(count, columns)` for `slices.power_step`, or `None`
            where the norm is not 2 or slices are vectors.
        squares: Tensor of the shape of the weight, for a `Preconditioner`, or
            `None` without one.
    """

    average: object
    step: object
    typical: object
    vector: object = None
    squares: object = None


def first_memory(slices, shape, settings):
    """Shapes and first values of a `Memory`: arrays, or `None` for zeros."""
    vector = None
    if settings.norm == 2 and min(slices.rows, slices.columns) > 1:
        # Any that is orthogonal to nothing in particular.
        rng = np.random.default_rng(0)
        vector = rng.normal(size=(slices.count, slices.columns))
        length = np.linalg.norm(vector, axis=1, keepdims=True)
        vector = vector / np.where(length > 0, length, 1)
    first = {
        "average": (shape, None),
        "step": (shape, None),
        "typical": ((slices.count,), None),
    }
    if vector is not None:
        first["vector"] = (vector.shape, vector)
    if settings.preconditioner is not None:
        first["squares"] = (shape, None)
    return first


class Settings(NamedTuple):
    """How steps are measured.

    Attributes:
        norm: `1`, `2` or `"inf"`.
        momentum: Float from 0 to 1.
        accuracy: Of polar factors, see `linalg.polar`.
        preconditioner: `Preconditioner`, or `None`.
    """

    norm: object
    momentum: float
    accuracy: str
    preconditioner: object = None


def next_step(gradient, weight, memory, slices, count, settings):
    """The next step of a weight, but for the length that all share.

    Args:
        gradient: Tensor of the shape of the weight.
        weight: Tensor.
        memory: `Memory`.
        slices: `Slices`.
        count: Scalar tensor, the number of this step, from one.
        settings: `Settings`.

    Returns:
        Tuple of the new `Memory` and the gain, a scalar: how much a step of
        unit length is to lower the loss, `<n, s>`.
    """
    beta = settings.momentum
    average = beta * memory.average + (1 - beta) * gradient
    ahead = (1 - beta) * gradient
    if beta:
        ahead = ahead + average * (beta / (1 - beta**count))
    stack = slices.split(ahead)
    now = _sizes(slices.split(gradient))
    typical = root_mean(memory.typical, now)
    mean = corrected(typical, count)
    share = ops.minimum(quotient(_sizes(stack), mean), 1.0)
    norms, vector = _norms(slices.split(weight), memory.vector, settings.norm)
    far = ops.maximum(norms, slices.floor) * share
    squares, metric = None, None
    if settings.preconditioner is not None:
        squares = settings.preconditioner.squares(memory.squares, gradient)
        metric = slices.split(settings.preconditioner.weights(squares))
    step = _directions(stack, metric, settings)
    step = far[:, None, None] * step
    gain = ops.sum(stack * step)
    step = slices.join(step, gradient.shape)
    return Memory(average, step, typical, vector, squares), gain


def alignment(gradients, memories, slices, count):
    """How far gradients agree with the steps before, from -1 to 1.

    A gradient smaller than usual says less, and a large one more: of single
    examples most may agree a little while the few that do not matter more.

    Args:
        gradients: List of tensors, or `None` where a weight has none.
        memories: List of `Memory`s, or `None` where a weight has no entry.
        slices: List of `Slices`.
        count: Scalar tensor, the number of steps so far.

    Returns:
        Scalar tensor, zero before the first step.
    """
    some = [
        part
        for part in zip(gradients, memories, slices)
        if part[0] is not None and part[1] is not None
    ]
    if not some:
        return ops.zeros(())
    inner, outer = [], []
    for gradient, memory, part in some:
        # In units of its usual gradient each slice counts alike: one with
        # large gradients, as a bias at the end, would speak for all.
        steps = ops.cast(ops.maximum(count, 1), memory.typical.dtype)
        usual = corrected(memory.typical, steps)
        scale = safe_divisor(usual)[:, None, None]
        step = part.split(memory.step)
        inner.append(ops.sum(scaled_down(part.split(gradient), scale) * step))
        outer.append(ops.sum(_sizes(step)))
    dtype = inner[0].dtype
    inner, outer = (
        ops.sum(ops.stack([ops.cast(x, dtype) for x in parts]))
        for parts in (inner, outer)
    )
    return ops.clip(quotient(inner, outer), -1.0, 1.0)


def next_length(length, alignment, rate):
    """The length `c` after a step.

    A `rate` that a schedule takes to zero makes steps shorter than measured,
    and gradients agree with those; that is not to make up for it, so that
    `c` moves by the square of the rate, at most one.

    Args:
        length: Scalar tensor.
        alignment: Scalar tensor from -1 to 1.
        rate: Scalar tensor, the learning rate.

    Returns:
        Scalar tensor.
    """
    rate = ops.minimum(ops.abs(rate), 1.0)
    length = length * ops.exp(KAPPA * rate * rate * alignment)
    return ops.clip(length, SHORTEST, LONGEST)


def _directions(stack, metric, settings):
    """The steepest steps, in a metric as long as without one."""
    if metric is None:
        return directions(stack, settings.norm, settings.accuracy)
    steps = directions(stack / metric, settings.norm, settings.accuracy)
    weighted = steps / metric
    # In the norm of all entries: that of each row and column is not meant to
    # be what it was.
    return quotient(_sizes(steps), _sizes(weighted))[:, None, None] * weighted


def _norms(stack, vector, norm):
    if vector is not None:
        return power_step(stack, vector)
    if norm == 2:
        return _sizes(stack) / unit(*stack.shape[1:], 2), None
    return lengths(stack, norm), None


def _sizes(stack):
    return size(stack, axis=(1, 2))
