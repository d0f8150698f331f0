"""Pairs of rows to rotate: drawn, in turn, or the best ones.

Pairs are `(j, l)` with `j < l`. The pairs of one call are disjoint, so their
rotations commute and are one geodesic step (math 3.3). The number of pairs
depends on the size alone, never on values.
"""

import keras
import numpy as np
from keras import ops

from tf_spectral import checks
from tf_spectral.checks import check_indices
from tf_spectral.checks import check_square
from tf_spectral.linalg.matching import dominant_matching

# Beyond, 32 bits do not give each pair a number.
MOST_ROWS = 46340


def uniform_pair(d, seed):
    """One pair, each of the `d (d - 1) / 2` equally likely. Constant work.

    Args:
        d: Integer from 2 to 46340, the number of rows.
        seed: Integer or `keras.random.SeedGenerator`.

    Returns:
        Integer tensor `(1, 2)`.

    Raises:
        ValueError: If `d` is out of range.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.pairings import uniform_pair
    >>> keras.ops.convert_to_numpy(uniform_pair(2, seed=0)).tolist()
    [[0, 1]]
    """
    d = checks.integer("d", d, minimum=2, maximum=MOST_ROWS)
    seed = _checked_seed(seed)
    number = keras.random.randint((), 0, d * (d - 1), dtype="int32", seed=seed)
    j, l = number // (d - 1), number % (d - 1)  # noqa: E741
    return _ordered(j[None], (l + ops.cast(l >= j, "int32"))[None])


def random_pairs(d, seed, count=None):
    """Disjoint pairs from a random permutation.

    Every pair is equally likely: with all of them it is in with probability
    `1 / (d - 1)` if `d` is even, else `1 / d`.

    Args:
        d: Positive integer, the number of rows.
        seed: Integer or `keras.random.SeedGenerator`.
        count: Integer up to `d // 2`, or `None` for `d // 2`. Defaults to
            `None`.

    Returns:
        Integer tensor `(count, 2)`.

    Raises:
        ValueError: If `d` or `count` is out of range.

    Example:

    >>> from tf_spectral.linalg.pairings import random_pairs
    >>> random_pairs(5, seed=0).shape[0]
    2
    """
    d = checks.integer("d", d, minimum=1, maximum=MOST_ROWS)
    count = _checked_count(count, d)
    seed = _checked_seed(seed)
    # tf.random.shuffle does not compile under XLA.
    draws = keras.random.uniform((d,), dtype="float32", seed=seed)
    order = ops.cast(ops.argsort(draws), "int32")[: 2 * count]
    return _ordered(order[:count], order[count:])


def round_count(d):
    """The number of rounds of `round_robin_pairs`: `d - 1`, or `d` if odd.

    Args:
        d: Positive integer, the number of rows.

    Returns:
        Integer, at least 1.

    Example:

    >>> from tf_spectral.linalg.pairings import round_count
    >>> round_count(4), round_count(5)
    (3, 5)
    """
    d = checks.integer("d", d, minimum=1, maximum=MOST_ROWS)
    return max(1, d - 1 + d % 2)


def round_robin_pairs(d, round):
    """One round of a tournament: in all rounds every pair occurs once.

    Args:
        d: Positive integer, the number of rows. If it is odd, one row has a
            bye in every round.
        round: Integer or integer scalar tensor, taken modulo
            `round_count(d)`.

    Returns:
        Integer tensor `(d // 2, 2)`.

    Raises:
        ValueError: If `d` is not a positive integer.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.pairings import round_robin_pairs
    >>> keras.ops.convert_to_numpy(round_robin_pairs(4, 1)).tolist()
    [[1, 3], [0, 2]]

    Reference: Hamze, "Parallelized computation and backpropagation under
    angle-parametrized orthogonal matrices", 2021 (circle method).
    """
    rounds = round_count(d)
    if isinstance(round, (int, np.integer)):
        round = checks.integer("round", round) % rounds
    round = check_indices("round", round, rounds) % rounds
    i = ops.arange(d % 2, (d + 1) // 2, dtype="int32")
    j, l = (round + i) % rounds, (round - i) % rounds  # noqa: E741
    # The last of an even number stays where it is; of an odd one, the first
    # pair is the bye.
    j = ops.where(i == 0, d - 1 + 0 * i, j)
    return _ordered(j, l)


def gauss_southwell_pair(s):
    """The pair of the largest partial derivative `|S_jl|`.

    Args:
        s: Floating skew tensor `(d, d)`, `d >= 2`, see `skew_gradient`.

    Returns:
        Integer tensor `(1, 2)`; the first of equal pairs, by `(j, l)`.

    Raises:
        ValueError: If `s` is not a square floating matrix or `d < 2`.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.pairings import gauss_southwell_pair
    >>> pair = gauss_southwell_pair([[0.0, 3.0], [-3.0, 0.0]])
    >>> keras.ops.convert_to_numpy(pair).tolist()
    [[0, 1]]
    """
    s = check_square("s", s)
    d = s.shape[0]
    if d < 2:
        raise ValueError(
            "Argument `s` has no pair of rows. Expected shape (d, d) with "
            f"d >= 2, Received: s.shape={tuple(s.shape)}"
        )
    place = ops.cast(ops.argmax(ops.reshape(ops.abs(s), (-1,))), "int32")
    j, l = place // d, place % d  # noqa: E741
    # All zero: the diagonal comes first.
    l = ops.where(j == l, (j + 1) % d, l)  # noqa: E741
    return _ordered(j[None], l[None])


def disjoint_pairs(scores, count=None):
    """The greedy matching: the best pair, the best of what is left, ...

    All in a few passes over `scores`, see `matching.dominant_matching`.

    Args:
        scores: Floating symmetric non-negative tensor `(d, d)` with a zero
            diagonal, such as `abs(skew_gradient(r, g))`.
        count: Integer up to `d // 2`, or `None` for `d // 2`. Defaults to
            `None`.

    Returns:
        Integer tensor `(count, 2)`, best pair first; of equal ones the first
        by `(j, l)`.

    Raises:
        ValueError: If `scores` is not a square floating matrix, or `count`
            is out of range.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.pairings import disjoint_pairs
    >>> scores = [[0.0, 3.0, 9.0], [3.0, 0.0, 1.0], [9.0, 1.0, 0.0]]
    >>> keras.ops.convert_to_numpy(disjoint_pairs(scores)).tolist()
    [[0, 2]]

    Reference: Preis, "Linear time 1/2-approximation algorithm for maximum
    weighted matching in general graphs", 1999.
    """
    scores = check_square("scores", scores)
    d = scores.shape[0]
    count = _checked_count(count, d)
    if count == 0:
        return ops.zeros((0, 2), "int32")
    partner = dominant_matching(scores)
    rows = ops.arange(d, dtype="int32")
    chosen = ops.take(ops.reshape(scores, (-1,)), rows * d + partner)
    worst = ops.full((d,), np.inf, chosen.dtype)
    order = ops.argsort(ops.where(rows < partner, -chosen, worst))
    j = ops.cast(order, "int32")[:count]
    return _ordered(j, ops.take(partner, j))


def _ordered(j, l):  # noqa: E741
    pairs = [ops.minimum(j, l), ops.maximum(j, l)]
    return ops.cast(ops.stack(pairs, axis=1), "int32")


def _checked_seed(seed):
    if seed is None:
        checks.refuse("seed", "be an integer or a `SeedGenerator`", seed)
    return checks.seed("seed", seed, generator=True)


def _checked_count(count, d):
    if count is None:
        return d // 2
    return checks.integer("count", count, minimum=0, maximum=d // 2)
