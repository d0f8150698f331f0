"""Parts of a labelled set that are set apart."""

import numpy as np


def stratified_split(x, y, fraction, rng):
    """Sets part of a labelled set apart, each class by its share.

    Args:
        x: Array of shape `(n, ...)`.
        y: Integer labels of shape `(n,)`.
        fraction: Share of the examples to set apart, 0 <= fraction < 1.
        rng: A `numpy.random.Generator`.

    Returns:
        Two pairs `(x_rest, y_rest), (x_apart, y_apart)`, each in random
        order. The second one has `round(fraction * n)` examples, and from
        each class its share of them to within one.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.datasets.splits import stratified_split
    >>> rng = np.random.default_rng(0)
    >>> x, y = np.arange(20), np.repeat([0, 1], 10)
    >>> rest, apart = stratified_split(x, y, 0.1, rng)
    >>> sorted(apart[1].tolist())
    [0, 1]
    """
    count = round(fraction * len(y))
    order = rng.permutation(len(y))
    by_class = order[np.argsort(y[order], kind="stable")]
    # Every (n / count)-th of the examples sorted by class, in exact integers.
    taken = np.diff(np.arange(len(y) + 1) * count // len(y)) > 0
    is_apart = np.zeros(len(y), dtype=bool)
    is_apart[by_class[taken]] = True
    apart, rest = order[is_apart[order]], order[~is_apart[order]]
    return (x[rest], y[rest]), (x[apart], y[apart])


def random_split(x, y, fraction, rng):
    """Sets part of a labelled set apart, whatever its labels are.

    Args:
        x: Array of shape `(n, ...)`.
        y: Array of shape `(n, ...)`.
        fraction: Share of the examples to set apart, 0 <= fraction < 1.
        rng: A `numpy.random.Generator`.

    Returns:
        Two pairs `(x_rest, y_rest), (x_apart, y_apart)`, each in random
        order. The second one has `round(fraction * n)` examples.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.datasets.splits import random_split
    >>> x = np.arange(20)
    >>> rest, apart = random_split(x, x, 0.1, np.random.default_rng(0))
    >>> len(rest[0]), len(apart[0])
    (18, 2)
    """
    order = rng.permutation(len(x))
    apart, rest = np.split(order, [round(fraction * len(x))])
    return (x[rest], y[rest]), (x[apart], y[apart])
