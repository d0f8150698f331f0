"""Names of weights that are short and yet tell them apart."""

import itertools


def short_names(paths, least=1):
    """The shortest unique beginnings of the paths, numbered if none is.

    Args:
        paths: List of tuples of strings.
        least: Integer, the least number of parts that a name has.

    Returns:
        List of strings, parts joined by `/`.
    """
    lengths = [min(least, len(path)) for path in paths]
    while True:
        names = ["/".join(p[:n]) for p, n in zip(paths, lengths)]
        longer = [
            n + (names.count(name) > 1 and n < len(path))
            for path, name, n in zip(paths, names, lengths)
        ]
        if longer == lengths:
            break
        lengths = longer
    unique = []
    for name in names:
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        candidates = itertools.chain([name], numbered)
        unique.append(next(c for c in candidates if c not in unique))
    return unique


def short_variable_names(variables):
    """`layer/weight` of each variable, longer where two would be the same.

    Args:
        variables: List of `keras.Variable`.

    Returns:
        List of strings.
    """
    backwards = [tuple(v.path.split("/")[::-1]) for v in variables]
    names = short_names(backwards, least=2)
    return ["/".join(name.split("/")[::-1]) for name in names]
