"""Which planes a step of coordinate descent turns, and how many.

A step takes `k` of the `D = d (d - 1) / 2` pairs of rows. Disjoint pairs are
turned together; where `k` exceeds the `d // 2` that fit, further rounds of
disjoint pairs follow (math 3.3).
"""

import math

import keras
from keras import ops

from tf_spectral.linalg.pairings import disjoint_pairs
from tf_spectral.linalg.pairings import gauss_southwell_pair
from tf_spectral.linalg.pairings import random_pairs
from tf_spectral.linalg.pairings import round_count
from tf_spectral.linalg.pairings import round_robin_pairs
from tf_spectral.linalg.pairings import uniform_pair


def pair_total(d):
    """The number of pairs of `d` rows."""
    return d * (d - 1) // 2


def round_sizes(block_size, d):
    """How many pairs each round of a step turns.

    Args:
        block_size: Positive integer, a number of pairs; a float in (0, 1], a
            share of all pairs; or a schedule, for which there is one round of
            as many pairs as fit.
        d: Integer, at least 2, the number of rows.

    Returns:
        List of integers.

    Raises:
        ValueError: If the integer exceeds the number of pairs.
    """
    fit, total = d // 2, pair_total(d)
    if isinstance(block_size, int):
        if block_size > total:
            raise ValueError(
                "Argument `block_size` is larger than the number of pairs. "
                f"Expected at most {total} for {d} rows, Received: "
                f"block_size={block_size}"
            )
        count = block_size
    elif isinstance(block_size, float):
        count = max(1, round(block_size * total))
    else:
        count = fit
    full, rest = divmod(count, fit)
    return [fit] * full + ([rest] if rest else [])


def drawn_pairs(sizes, d, seed):
    """Pairs drawn uniformly, all different.

    Args:
        sizes: List of integers, see `round_sizes`.
        d: Integer, the number of rows.
        seed: `keras.random.SeedGenerator`.

    Returns:
        List of integer tensors `(size, 2)`.
    """
    if sizes == [1]:
        return [uniform_pair(d, seed)]
    if len(sizes) == 1:
        return [random_pairs(d, seed, sizes[0])]
    # Rounds of a tournament, of players in random order.
    draws = keras.random.uniform((d,), dtype="float32", seed=seed)
    order = ops.cast(ops.argsort(draws), "int32")
    return [
        _ordered(ops.take(order, round_robin_pairs(d, i)))[:size]
        for i, size in enumerate(sizes)
    ]


def cyclic_pairs(sizes, d, step):
    """Pairs in turn, round by round of a tournament, each equally often.

    Where a step takes less than a round, it takes the next part of it, and
    the next time that the round comes it begins where it ended. Where a step
    takes more than a round, its last one may be in part: each round is the
    last one equally often, and takes other pairs each time.

    Args:
        sizes: List of integers, see `round_sizes`.
        d: Integer, the number of rows.
        step: Integer scalar tensor, the number of the step.

    Returns:
        List of integer tensors `(size, 2)`.
    """
    fit, rounds = d // 2, round_count(d)
    if len(sizes) == 1:
        size = sizes[0]
        parts = math.ceil(fit / size)
        round, lap = step // parts, step // (parts * rounds)
        # A whole round moves on, too: a schedule takes the first of it.
        start = lap % fit
        if size < fit:
            start = (lap * parts + step % parts) % fit * size
        return [_part(round_robin_pairs(d, round), start, size)]
    # The last round of a step is the same one again after `period` steps, and
    # of the rounds only one in `common` would ever be it: move on by one.
    common = math.gcd(len(sizes), rounds)
    first = step * len(sizes)
    if common > 1:
        first = first + step // (rounds // common)
    turn = step // rounds % fit
    return [
        _part(round_robin_pairs(d, first + i), turn * size, size)
        for i, size in enumerate(sizes)
    ]


def best_pairs(direction, sizes):
    """The pairs with the largest entries, round by round.

    Each round is a greedy matching of the pairs that no round before it has.
    Where that leaves rows without a new partner, pairs of before fill up,
    with an entry of zero.

    Args:
        direction: Skew tensor `(d, d)`.
        sizes: List of integers, see `round_sizes`.

    Returns:
        List of integer tensors `(size, 2)`, the best first, and list of
        tensors `(size,)`, their entries.
    """
    if sizes == [1]:
        pairs = gauss_southwell_pair(direction)
        return [pairs], [entries(direction, pairs)]
    rounds, picked = [], []
    for size in sizes:
        if rounds:
            direction = _without(direction, rounds[-1])
        scores = ops.abs(direction)
        rounds.append(disjoint_pairs(scores, size))
        picked.append(entries(direction, rounds[-1]))
    return rounds, picked


def entries(matrix, pairs):
    """The entries `(j, l)` of a square matrix, for each pair."""
    flat = ops.reshape(matrix, (-1,))
    return ops.take(flat, flat_places(pairs, matrix.shape[0]))


def flat_places(pairs, d):
    """The places of pairs in a flat `(d * d,)` array."""
    return pairs[:, 0] * d + pairs[:, 1]


def _part(pairs, start, size):
    places = start + ops.arange(size, dtype="int32")
    return ops.take(pairs, places % pairs.shape[0], axis=0)


def _ordered(pairs):
    least, most = ops.min(pairs, axis=1), ops.max(pairs, axis=1)
    return ops.stack([least, most], axis=1)


def _without(direction, pairs):
    indices = ops.concatenate([pairs, ops.flip(pairs, axis=1)])
    zeros = ops.zeros((indices.shape[0],), direction.dtype)
    return ops.scatter_update(direction, indices, zeros)
