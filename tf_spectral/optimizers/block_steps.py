"""Directions and dual norms of the blocks of a network.

What DSGD has to know of each gradient before it moves one of them. Polar
factors, the costly part for the norm 2, are computed only for blocks that
may be moved.
"""

import math
from typing import NamedTuple

from keras import ops

from tf_spectral.linalg.norms import as_matrix
from tf_spectral.linalg.norms import dual_norm
from tf_spectral.linalg.norms import nuclear_norm_upper_bound
from tf_spectral.linalg.polar import polar_and_nuclear

# What a polar factor captures at least, as a share of the Frobenius norm: see
# `linalg.polar.polar_and_nuclear`.
POLAR_ACCURACIES = {"standard": 0.99, "fast": 0.85, "exact": 1.0}


# Up to this rank a polar factor costs no more than a better bound.
SMALL = 64


class LayerSteps(NamedTuple):
    """What is known of `n` blocks; lists of length `n`.

    The step of block `i` is `factors[i] / p_i^2` times `directions[i]`, or
    times its duality map for the norms 1 and inf, and has the length
    `dual_norms[i] / p_i^2`.
    """

    directions: list
    dual_norms: list
    factors: list


def sparse_steps(gradients, norm, dtype):
    """For the norms 1 and inf: maps are cheap, and left to the update.

    Args:
        gradients: List of tensors, or `None` where a block has none.
        norm: `1` or `"inf"`.
        dtype: Of the dual norms.

    Returns:
        `LayerSteps`.
    """
    duals = [
        ops.zeros((), dtype)
        if g is None
        else ops.cast(dual_norm(g, norm), dtype)
        for g in gradients
    ]
    return LayerSteps(
        list(gradients), duals, [ops.ones((), dtype)] * len(duals)
    )


def chosen_spectral_steps(gradients, chosen, accuracy, dtype):
    """For the norm 2: polar factors of the chosen blocks alone.

    Args:
        gradients: List of tensors, or `None` where a block has none.
        chosen: Boolean tensor `(n,)`. Blocks outside keep their gradient as
            direction and a dual norm of zero.
        accuracy: Key of `POLAR_ACCURACIES`.
        dtype: Of the dual norms.

    Returns:
        `LayerSteps`.
    """
    steps = LayerSteps([], [], [])
    for gradient, wanted in zip(gradients, ops.unstack(chosen)):
        _append(steps, gradient, wanted, accuracy, dtype)
    return steps


def greedy_spectral_steps(gradients, roots, accuracy, dtype):
    """For the norm 2: polar factors of the blocks that can have the best score.

    A block's score is its nuclear norm over `p_i`, and
    `||G||_F <= ||G||_* <= sqrt(rank) ||G||_F`: one pass over the gradient
    tells of most blocks whether they can win, and a few thin products of the
    rest.

    Args:
        gradients: List of tensors, or `None` where a block has none.
        roots: List of scalars, the `p_i`.
        accuracy: Key of `POLAR_ACCURACIES`.
        dtype: Of the dual norms.

    Returns:
        `LayerSteps`, with a dual norm of zero where a block cannot win.
    """
    share = POLAR_ACCURACIES[accuracy]
    floors, ceilings = [], []
    for gradient, root in zip(gradients, roots):
        size = ops.zeros((), dtype)
        rank = 1
        if gradient is not None:
            size = ops.cast(dual_norm(ops.reshape(gradient, (-1,)), 2), dtype)
            rank = largest_rank(gradient)
        floors.append((size if rank == 1 else share * size) / root)
        ceilings.append(math.sqrt(rank) * size / root)
    best = ops.max(ops.stack(floors))
    steps = LayerSteps([], [], [])
    for gradient, root, ceiling in zip(gradients, roots, ceilings):
        wanted = _can_win(gradient, root, ceiling, best, dtype)
        _append(steps, gradient, wanted, accuracy, dtype)
        best = ops.maximum(best, steps.dual_norms[-1] / root)
    return steps


def one_of(n, index):
    """Boolean tensor of shape `(n,)`, true at `index`."""
    return ops.equal(ops.arange(n), ops.cast(index, "int32"))


def _append(steps, gradient, wanted, accuracy, dtype):
    if gradient is None:
        zero = ops.zeros((), dtype)
        direction, dual, factor = None, zero, zero
    elif largest_rank(gradient) == 1:
        # Its own direction: no division by a norm that may be zero.
        dual = ops.cast(dual_norm(ops.reshape(gradient, (-1,)), 2), dtype)
        dual = ops.where(wanted, dual, ops.zeros_like(dual))
        direction, factor = gradient, ops.ones((), dtype)
    else:
        direction, dual = ops.cond(
            wanted,
            lambda: _polar(gradient, accuracy, dtype),
            lambda: (gradient, ops.zeros((), dtype)),
        )
        factor = dual
    steps.directions.append(direction)
    steps.dual_norms.append(dual)
    steps.factors.append(factor)


def _polar(gradient, accuracy, dtype):
    options = {"exact": True} if accuracy == "exact" else {"accuracy": accuracy}
    factor, nuclear = polar_and_nuclear(as_matrix(gradient), **options)
    factor = ops.reshape(factor, ops.shape(gradient))
    return factor, ops.cast(nuclear, dtype)


def _can_win(gradient, root, ceiling, best, dtype):
    """Whether a block's score may be the best; looks closer where it seems."""
    if gradient is None or largest_rank(gradient) <= SMALL:
        return ceiling >= best

    def closer():
        bound = nuclear_norm_upper_bound(as_matrix(gradient))
        return ops.cast(bound, dtype) / root >= best

    return ops.cond(
        ceiling >= best, closer, lambda: ops.zeros((), dtype="bool")
    )


def largest_rank(gradient):
    """The most singular values that a block may have, 1 without columns."""
    shape = gradient.shape
    return min(math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else 1
