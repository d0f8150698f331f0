"""Steps of the blocks of a network: pure functions of their gradients.

A block is one weight of a model, with a norm of its own. Its gradient `G` is
measured in the dual norm, and its step is the duality map of `G` over a
curvature: for the norm 2 `||G||_* polar(G) / L`. Polar factors, the costly
part, are computed only of blocks that may be moved.
"""

import math
from typing import NamedTuple

import keras
from keras import ops

from tf_spectral.linalg.norms import as_matrix
from tf_spectral.linalg.norms import dual_norm
from tf_spectral.linalg.norms import nuclear_norm_upper_bound
from tf_spectral.linalg.polar import polar_and_nuclear

SELECTIONS = ("greedy", "all", "random", "cyclic")

# What a polar factor captures at least, as a share of the Frobenius norm: see
# `linalg.polar.polar_and_nuclear`.
POLAR_ACCURACIES = {"standard": 0.99, "fast": 0.85, "exact": 1.0}

# Up to this rank a polar factor costs no more than a better bound.
SMALL = 64


class BlockSteps(NamedTuple):
    """What is known of the steps of `n` blocks.

    The step of block `i` is `factors[i] / curvature[i]` times
    `directions[i]`, or times its duality map for the norms 1 and inf. Its
    length is `dual_norms[i] / curvature[i]`.

    Attributes:
        directions: List of tensors, or `None` where a block has no gradient.
        dual_norms: Tensor `(n,)`, of the norm 2 zero outside the blocks that
            may be moved.
        factors: Tensor `(n,)`.
        chosen: Boolean tensor `(n,)`, the blocks to move.
    """

    directions: list
    dual_norms: object
    factors: object
    chosen: object


def block_steps(gradients, curvature, norm, choose, accuracy="standard"):
    """The steps of blocks, and which of them are to be taken.

    Args:
        gradients: List of tensors, or `None` where a block has none.
        curvature: Tensor `(n,)`, positive: bounds of the second derivative in
            each block, `p_i^2` or `L`.
        norm: `1`, `2` or `"inf"`.
        choose: Boolean tensor `(n,)`, or `"greedy"` for the one block with
            the largest `||G||_*^2 / curvature`. See `chosen_blocks`.
        accuracy: Key of `POLAR_ACCURACIES`, for the norm 2. Defaults to
            `"standard"`.

    Returns:
        `BlockSteps`.
    """
    greedy = isinstance(choose, str)
    dtype = curvature.dtype
    roots = ops.sqrt(curvature) if greedy else None
    if norm != 2:
        parts = _sparse(gradients, norm, dtype)
    elif greedy:
        parts = _best_spectral(gradients, ops.unstack(roots), accuracy, dtype)
    else:
        parts = [
            _spectral(gradient, wanted, accuracy, dtype)
            for gradient, wanted in zip(gradients, ops.unstack(choose))
        ]
    directions, dual_norms, factors = zip(*parts)
    dual_norms, factors = ops.stack(dual_norms), ops.stack(factors)
    if greedy:
        choose = one_of(len(gradients), ops.argmax(dual_norms / roots))
    return BlockSteps(list(directions), dual_norms, factors, choose)


def chosen_blocks(selection, n, step, seed):
    """Which blocks a step moves, as far as gradients do not matter.

    Args:
        selection: One of `SELECTIONS`.
        n: Integer, the number of blocks.
        step: Integer scalar tensor, the number of the step.
        seed: `keras.random.SeedGenerator`, for `"random"`.

    Returns:
        Boolean tensor `(n,)`, or `"greedy"`.
    """
    if selection == "all":
        return ops.ones((n,), dtype="bool")
    if selection == "random":
        return one_of(n, keras.random.randint((), 0, n, seed=seed))
    if selection == "cyclic":
        return one_of(n, step % n)
    return selection


def step_scales(steps, rate, curvature, longest=None):
    """What each direction is multiplied by, and how long each step is.

    Args:
        steps: `BlockSteps` of `n` blocks.
        rate: Scalar, the learning rate.
        curvature: Tensor `(n,)`.
        longest: Tensor `(n,)`, no step is longer (math 5.8); `None` for no
            limit. Defaults to `None`.

    Returns:
        Tensors `(n,)`: the scales, zero where a block has infinite curvature,
        and the lengths before any limit.
    """
    lengths = rate * (steps.dual_norms / curvature)
    scales = rate * (steps.factors / curvature)
    if longest is not None:
        ones = ops.ones_like(lengths)
        scales *= ops.where(lengths > longest, longest / lengths, ones)
    scales = ops.where(ops.isfinite(scales), scales, ops.zeros_like(scales))
    return scales, lengths


def one_of(n, index):
    """Boolean tensor of shape `(n,)`, true at `index`."""
    return ops.equal(ops.arange(n), ops.cast(index, "int32"))


def polar_options(accuracy):
    """Arguments of `linalg.polar` for a key of `POLAR_ACCURACIES`."""
    return {"exact": True} if accuracy == "exact" else {"accuracy": accuracy}


def largest_rank(gradient):
    """The most singular values that a block may have, 1 without columns."""
    shape = gradient.shape
    return min(math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else 1


def _sparse(gradients, norm, dtype):
    """For the norms 1 and inf: maps are cheap, and left to the update."""
    one, zero = ops.ones((), dtype), ops.zeros((), dtype)
    return [
        (g, zero if g is None else ops.cast(dual_norm(g, norm), dtype), one)
        for g in gradients
    ]


def _best_spectral(gradients, roots, accuracy, dtype):
    """For the norm 2: polar factors of the blocks that can have the best score.

    A block's score is its nuclear norm over the root of its curvature, and
    `||G||_F <= ||G||_* <= sqrt(rank) ||G||_F`: one pass over the gradient
    tells of most blocks whether they can win, and a few thin products of the
    rest. A block that cannot win gets a dual norm of zero.
    """
    share = POLAR_ACCURACIES[accuracy]
    floors, ceilings = [], []
    for gradient, root in zip(gradients, roots):
        size = ops.zeros((), dtype)
        rank = 1
        if gradient is not None:
            size = _length(gradient, dtype)
            rank = largest_rank(gradient)
        floors.append((size if rank == 1 else share * size) / root)
        ceilings.append(math.sqrt(rank) * size / root)
    best = ops.max(ops.stack(floors))
    parts = []
    for gradient, root, ceiling in zip(gradients, roots, ceilings):
        wanted = _can_win(gradient, root, ceiling, best, dtype)
        parts.append(_spectral(gradient, wanted, accuracy, dtype))
        best = ops.maximum(best, parts[-1][1] / root)
    return parts


def _spectral(gradient, wanted, accuracy, dtype):
    """Direction, dual norm and factor; norm zero unless it is wanted."""
    zero = ops.zeros((), dtype)
    if gradient is None:
        return None, zero, zero
    if largest_rank(gradient) == 1:
        # Its own direction: no division by a norm that may be zero.
        dual = ops.where(wanted, _length(gradient, dtype), zero)
        return gradient, dual, ops.ones((), dtype)
    direction, dual = ops.cond(
        wanted,
        lambda: _polar(gradient, accuracy, dtype),
        lambda: (gradient, ops.zeros((), dtype)),
    )
    return direction, dual, dual


def _length(gradient, dtype):
    return ops.cast(dual_norm(ops.reshape(gradient, (-1,)), 2), dtype)


def _polar(gradient, accuracy, dtype):
    options = polar_options(accuracy)
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
