"""Checks of the arguments that the data sets have in common."""

import numbers


def check_integer(name, value, minimum):
    """Raises unless an argument is an integer of at least `minimum`.

    Args:
        name: Name of the argument, for the message.
        value: What the caller passed.
        minimum: Smallest integer allowed.

    Raises:
        ValueError: If `value` is a boolean, no integer, or too small.

    Example:

    >>> check_integer("length", 30, minimum=2)
    """
    is_integer = isinstance(value, numbers.Integral)
    if isinstance(value, bool) or not is_integer or value < minimum:
        raise ValueError(
            f"Argument `{name}` must be an integer. Expected {name} >= "
            f"{minimum}, Received: {name}={value!r}"
        )


def check_choice(name, value, choices):
    """Raises unless an argument is one of the names that are known.

    Args:
        name: Name of the argument, for the message.
        value: What the caller passed.
        choices: Iterable of strings.

    Raises:
        ValueError: If `value` is not among `choices`.

    Example:

    >>> check_choice("layout", "srcd", ("srcd", "spectral_rnn"))
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(
            f"Argument `{name}` must be a known name. Expected one of "
            f"{choices}, Received: {name}={value!r}"
        )
