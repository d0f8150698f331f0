"""Locally dominant matching of the rows of a symmetric matrix.

Every free row names its best free partner; rows that name each other are
paired; repeat. With scores in a fixed order this finds the greedy matching
(math 3.3), for the best pair of all names itself, and so does every pair
better than all others of its two rows. Where rows name few partners, as in
`u u^T`, where all name the same one, a round pairs few of them. Every row then
keeps a list of its best partners, which serves many rounds: a partner that is
taken is passed over, and the first free one is the best that is left.
"""

import math

from keras import ops

from tf_spectral.backend.tensors import top_k_takes_any
from tf_spectral.checks import check_square

# A round pairs about half of the free rows of a random matrix. The rest is
# copied into a matrix of 5/8 the size, so that most sizes take one round and
# all rounds together 1.7 passes over the first matrix.
SHRINKING = 0.625
SMALL = 96
# Rounds over all scores before there are lists, and the length of a list.
WHOLE_ROUNDS = 3
LISTED = 32


def dominant_matching(scores):
    """A partner for every row: the greedy matching, in a few passes.

    Args:
        scores: Floating symmetric non-negative tensor `(d, d)` with a zero
            diagonal. Pairs that score zero are made in the order of rows.

    Returns:
        Integer tensor `(d,)`: the partner of each row, a permutation that is
        its own inverse. If `d` is odd one row is its own partner.

    Raises:
        ValueError: If `scores` is not a square floating matrix.

    Example:

    >>> import keras
    >>> from tf_spectral.linalg.matching import dominant_matching
    >>> scores = [[0.0, 3.0, 9.0], [3.0, 0.0, 1.0], [9.0, 1.0, 0.0]]
    >>> keras.ops.convert_to_numpy(dominant_matching(scores)).tolist()
    [2, 1, 0]

    Reference: Preis, "Linear time 1/2-approximation algorithm for maximum
    weighted matching in general graphs", 1999.
    """
    scores = check_square("scores", scores)
    d = scores.shape[0]
    partner = rows = ops.arange(d, dtype="int32")
    if d < 2:
        return partner
    nodes, free = rows, ops.ones((d,), "bool")
    while True:
        m = scores.shape[0]
        target = math.ceil(SHRINKING * m) if m > SMALL else 0
        free, mate = _rounds(scores, free, target)
        places = nodes[:, None]
        mate = ops.where(
            mate < 0, ops.take(partner, nodes), ops.take(nodes, abs(mate))
        )
        partner = ops.scatter_update(partner, places, mate)
        if target == 0:
            break
        kept = ops.argsort(ops.where(free, rows[:m], rows[:m] + m))[:target]
        nodes, free = ops.take(nodes, kept), ops.take(free, kept)
        # The scores are symmetric, and a gather of rows is the faster one.
        scores = ops.transpose(ops.take(scores, kept, axis=0))
        scores = _hidden(ops.take(scores, kept, axis=0), free)
    return _pair_neighbours(partner, partner == rows)


def _rounds(scores, free, target):
    """Pairs free rows until at most `target` are left, or none scores.

    Taken rows are to be hidden in `scores`.

    Returns:
        Tuple of tensors `(m,)`: which rows are free still, and the mate of
        each row paired here or -1.
    """
    mate = -ops.ones((scores.shape[0],), "int32")
    state = ops.while_loop(
        lambda progress, free, mate: _unfinished(progress, free, target),
        lambda progress, free, mate: _paired(
            *_best_partners(_hidden(scores, free)), free, mate
        ),
        _paired(*_best_partners(scores), free, mate),
        maximum_iterations=None if top_k_takes_any() else WHOLE_ROUNDS - 1,
    )
    if top_k_takes_any():
        return state[1:]
    return ops.while_loop(
        lambda progress, free, mate: _unfinished(progress, free, target),
        lambda progress, free, mate: _list_rounds(scores, free, mate, target),
        state,
    )[1:]


def _list_rounds(scores, free, mate, target):
    """Rounds over lists of the best partners, until none names another."""
    length = min(LISTED, scores.shape[0])
    values, lists = ops.top_k(_hidden(scores, free), length)
    lists = ops.cast(lists, "int32")
    rows = ops.arange(length, dtype="int32")

    def named(free):
        # The first partner on each list that scores and is free.
        usable = ops.logical_and(ops.take(free, lists), values > 0)
        place = ops.min(ops.where(usable, rows, length + 0 * rows), axis=1)
        exhausted = place == length
        place = ops.minimum(place, length - 1)[:, None]
        value = ops.take_along_axis(values, place, axis=1)[:, 0]
        # Whose list has ended is named by others, but names nobody.
        value = ops.where(exhausted, ops.zeros_like(value), value)
        partner = ops.take_along_axis(lists, place, axis=1)[:, 0]
        return value, ops.where(exhausted, 0 * partner, partner)

    state = _paired(*named(free), free, mate)
    first = state[0]
    _, free, mate = ops.while_loop(
        lambda progress, free, mate: _unfinished(progress, free, target),
        lambda progress, free, mate: _paired(*named(free), free, mate),
        state,
    )
    return first, free, mate


def _unfinished(progress, free, target):
    left = ops.sum(ops.cast(free, "int32"))
    return ops.logical_and(progress, left > target)


def _paired(value, named, free, mate):
    """Pairs the free rows that name each other; whether there were any."""
    rows = ops.arange(named.shape[0], dtype="int32")
    # Both score: whose list has ended names nobody.
    scoring = ops.logical_and(value > 0, ops.take(value, named) > 0)
    mutual = ops.logical_and(ops.take(named, named) == rows, scoring)
    # Some pair is the best of all: no progress means that no pair scores.
    mutual = ops.logical_and(mutual, free)
    return (
        ops.any(mutual),
        ops.logical_and(free, ops.logical_not(mutual)),
        ops.where(mutual, named, mate),
    )


def _best_partners(seen):
    """The largest entry of each row and its place, of equal ones the first."""
    if top_k_takes_any():
        named = ops.cast(ops.argmax(seen, axis=1), "int32")
        places = ops.arange(seen.shape[0], dtype="int32") * seen.shape[1]
        return ops.take(ops.reshape(seen, (-1,)), places + named), named
    # At 1024 rows in a third of the time of `argmax`.
    value, named = ops.top_k(seen, 1)
    return value[:, 0], ops.cast(named[:, 0], "int32")


def _hidden(scores, free):
    """Scores with the rows that are taken out of everybody's view."""
    return scores * ops.cast(free, scores.dtype)


def _pair_neighbours(partner, free):
    """Pairs the free rows in their order: nothing scores between them."""
    d = partner.shape[0]
    places = ops.arange(d, dtype="int32")
    order = ops.argsort(ops.where(free, places, places + d))
    order = ops.cast(order, "int32")
    neighbour = places + 1 - 2 * (places % 2)
    left = ops.sum(ops.cast(free, "int32"))
    paired = ops.maximum(places, neighbour) < left
    # The last place of an odd number has no neighbour.
    beside = ops.take(order, ops.minimum(neighbour, d - 1))
    new = ops.where(paired, beside, ops.take(partner, order))
    return ops.scatter_update(partner, order[:, None], new)
