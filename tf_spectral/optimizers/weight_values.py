"""Positive numbers that are given for some weights of a model, by name.

A name is the end of a weight's path. Paths change when a model is saved and
loaded, their ends stay.
"""

import math

import numpy as np

from tf_spectral import checks

BOUND, MEASURED = "bound", "measured"


def checked_values(name, value, measurable=False):
    """A number or a dict as Python's own, for a configuration.

    Args:
        name: String, the argument, for errors.
        value: Positive number, or dict from names of weights to such.
        measurable: Boolean, whether the word `"bound"` may take the place of
            a number, and `"measured"` that of all. Defaults to `False`.

    Returns:
        Float, `"measured"`, `"bound"`, or a dict of numbers and the latter.

    Raises:
        ValueError: If it is something else, also NaN.
    """
    if not isinstance(value, dict):
        return _checked(name, value, (MEASURED, BOUND) if measurable else ())
    if not value or not all(isinstance(key, str) and key for key in value):
        raise ValueError(
            f"Argument `{name}` must have names of weights as its keys. "
            f'Expected a dict such as {{"kernel": 1.0}}, Received: '
            f"{name}={value}"
        )
    return {
        key: _checked(f'{name}["{key}"]', number, (BOUND,) * measurable)
        for key, number in value.items()
    }


def values_by_weight(name, given, paths, default=None):
    """The value for each weight.

    Args:
        name: String, the argument, for errors.
        given: What `checked_values` returns.
        paths: List of strings, the paths of the weights.
        default: Value of weights that a dict without `"default"` leaves out;
            `None` if it may leave out none. Defaults to `None`.

    Returns:
        List with a value for each path.

    Raises:
        ValueError: If a name fits no weight, if different values fit one
            equally well, or if a weight is left out that may not be.
    """
    if not isinstance(given, dict):
        return [given] * len(paths)
    for key in given:
        if key != "default" and not any(_fit(key, path) for path in paths):
            raise ValueError(
                f"Argument `{name}` names a weight that does not exist. "
                f"Expected ends of {paths}, Received: {name} with "
                f'"{key}"'
            )
    default = given.get("default", default)
    values = [_best(name, given, path, default) for path in paths]
    missing = [path for path, v in zip(paths, values) if v is None]
    if missing:
        raise ValueError(
            f"Argument `{name}` leaves out weights. Expected a value for "
            f'each of {missing}, or one for "default", Received: '
            f"{name}={dict(given)}"
        )
    return values


def _checked(name, value, words):
    if isinstance(value, str) and value in words:
        return value
    if isinstance(value, (float, np.floating)) and value == math.inf:
        return math.inf
    words = "".join(f' or "{word}"' for word in words)
    value = checks.number(
        name,
        value,
        minimum=checks.SMALLEST,
        must=f"be a positive number{words}",
    )
    # Beyond what float32 holds is no step either.
    return value if value < 3e38 else math.inf


def _fit(key, path):
    """How many parts of a path a name tells, zero if it is another's.

    The path may be the shorter one: loading a model takes off its beginning.
    """
    key, path = key.split("/")[::-1], path.split("/")[::-1]
    n = min(len(key), len(path))
    return n if key[:n] == path[:n] else 0


def _best(name, given, path, default):
    fits = {k: _fit(k, path) for k in given if k != "default"}
    most = max(fits.values(), default=0)
    if not most:
        return default
    best = {given[key] for key, fit in fits.items() if fit == most}
    if len(best) > 1:
        keys = [key for key, fit in fits.items() if fit == most]
        raise ValueError(
            f"Argument `{name}` gives one weight several values. Expected one "
            f"for {path}, Received: {name} with {keys}"
        )
    return best.pop()
