"""Locally dominant matching of the rows of a symmetric matrix.

Every free row names its best free partner; rows that name each other are
paired; repeat. With scores in a fixed order this finds the greedy matching
(math 3.3), for the best pair of all names itself, and so does every pair
better than all others of its two rows.
"""

import math

from keras import backend
from keras import ops

from tf_spectral import checks
from tf_spectral.linalg.checks import check_square

# A round pairs about half of the free rows of a random matrix. The rest is
# copied into a matrix of 5/8 the size, so that most sizes take one round and
# all rounds together 1.7 passes over the first matrix.
SHRINKING = 0.625
SMALL = 96


def dominant_matching(scores, max_rounds=None):
    """A partner for every row: the greedy matching, in a few passes.

    Args:
        scores: Floating symmetric non-negative tensor `(d, d)` with a zero
            diagonal. Pairs that score zero are made in the order of rows.
        max_rounds: Positive integer, the most rounds at one size, or `None`
            for as many as it takes. Rows of a random matrix take two or
            three at each size. A matrix such as `u u^T`, where all rows
            name the same partner, takes up to `d / 2`; with a limit, rows
            that are left are sorted by the best score they were last seen
            with, and paired with their neighbours. Defaults to `None`.

    Returns:
        Integer tensor `(d,)`: the partner of each row, a permutation that is
        its own inverse. If `d` is odd one row is its own partner.

    Raises:
        ValueError: If `scores` is not a square floating matrix, or
            `max_rounds` not a positive integer.

    Example:

    >>> scores = [[0.0, 3.0, 9.0], [3.0, 0.0, 1.0], [9.0, 1.0, 0.0]]
    >>> keras.ops.convert_to_numpy(dominant_matching(scores)).tolist()
    [2, 1, 0]

    Reference: Preis, "Linear time 1/2-approximation algorithm for maximum
    weighted matching in general graphs", 1999.
    """
    scores = check_square("scores", scores)
    if max_rounds is not None:
        max_rounds = checks.integer("max_rounds", max_rounds, minimum=1)
    d = scores.shape[0]
    partner = rows = ops.arange(d, dtype="int32")
    if d < 2:
        return partner
    strength = ops.zeros_like(scores[0])
    nodes, free = rows, ops.ones((d,), "bool")
    while True:
        m = scores.shape[0]
        target = math.ceil(SHRINKING * m) if m > SMALL else 0
        free, mate, best = _rounds(scores, free, target, max_rounds)
        places = nodes[:, None]
        mate = ops.where(
            mate < 0, ops.take(partner, nodes), ops.take(nodes, abs(mate))
        )
        partner = ops.scatter_update(partner, places, mate)
        if max_rounds is not None:
            strength = ops.scatter_update(strength, places, best)
        if target == 0:
            break
        kept = ops.argsort(ops.where(free, rows[:m], rows[:m] + m))[:target]
        nodes, free = ops.take(nodes, kept), ops.take(free, kept)
        # The scores are symmetric, and a gather of rows is the faster one.
        scores = ops.transpose(ops.take(scores, kept, axis=0))
        scores = _hidden(ops.take(scores, kept, axis=0), free)
    return _pair_neighbours(partner, partner == rows, strength)


def _rounds(scores, free, target, max_rounds):
    """Pairs free rows until at most `target` are left, or none scores.

    Taken rows are to be hidden in `scores`.

    Returns:
        Tuple of tensors `(m,)`: which rows are free still, the mate of each
        row paired here or -1, and the best score each row last had in view.
    """
    m = scores.shape[0]
    rows = ops.arange(m, dtype="int32")

    def step(seen, free, mate, best):
        value, named = _best_partners(seen)
        mutual = ops.logical_and(ops.take(named, named) == rows, free)
        # Some pair is the best of all: no progress means that no pair scores.
        mutual = ops.logical_and(mutual, value > 0)
        return (
            ops.any(mutual),
            ops.logical_and(free, ops.logical_not(mutual)),
            ops.where(mutual, named, mate),
            ops.where(free, value, best),
        )

    def unfinished(progress, free, mate, best):
        left = ops.sum(ops.cast(free, "int32"))
        return ops.logical_and(progress, left > target)

    def body(progress, free, mate, best):
        return step(_hidden(scores, free), free, mate, best)

    state = step(scores, free, -ops.ones_like(rows), 0 * scores[0])
    if max_rounds == 1:
        return state[1:]
    more = None if max_rounds is None else max_rounds - 1
    return ops.while_loop(unfinished, body, state, maximum_iterations=more)[1:]


def _best_partners(seen):
    """The largest entry of each row and its place, of equal ones the first."""
    if backend.backend() == "torch":
        # Its `top_k` takes any of equal entries.
        named = ops.cast(ops.argmax(seen, axis=1), "int32")
        places = ops.arange(seen.shape[0], dtype="int32") * seen.shape[1]
        return ops.take(ops.reshape(seen, (-1,)), places + named), named
    # At 1024 rows in a third of the time of `argmax`.
    value, named = ops.top_k(seen, 1)
    return value[:, 0], ops.cast(named[:, 0], "int32")


def _hidden(scores, free):
    """Scores with the rows that are taken out of everybody's view."""
    return scores * ops.cast(free, scores.dtype)


def _pair_neighbours(partner, free, strength):
    """Pairs the free rows in order of their strength, of equal ones first."""
    d = partner.shape[0]
    places = ops.arange(d, dtype="int32")
    strength = ops.where(strength > 0, strength, ops.zeros_like(strength))
    taken = ops.ones_like(strength)
    order = ops.argsort(ops.where(free, -strength, taken))
    order = ops.cast(order, "int32")
    neighbour = places + 1 - 2 * (places % 2)
    left = ops.sum(ops.cast(free, "int32"))
    paired = ops.maximum(places, neighbour) < left
    # The last place of an odd number has no neighbour.
    beside = ops.take(order, ops.minimum(neighbour, d - 1))
    new = ops.where(paired, beside, ops.take(partner, order))
    return ops.scatter_update(partner, order[:, None], new)
