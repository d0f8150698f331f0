"""Logs with a row for each update, beside those with one for each epoch."""

import numpy as np

from tf_spectral.plotting.logs import to_columns


def labelled_logs(logs):
    """Turns logs into a dict of label -> columns.

    Args:
        logs: Dict of label -> log, each a path of a CSV file or a dict of
            columns.

    Returns:
        Dict of label -> dict of arrays.

    Raises:
        ValueError: If `logs` is no dict or holds nothing.

    Example:

    >>> from tf_spectral.plotting.positions import labelled_logs
    >>> labelled_logs({"DSGD": {"loss": [2, 1]}})["DSGD"]["loss"]
    array([2., 1.])
    """
    if not isinstance(logs, dict) or not logs:
        raise ValueError(
            "Argument `logs` must hold a log. Expected a dict of label -> "
            f"path or columns, Received: logs={logs!r}"
        )
    return {str(label): to_columns(log) for label, log in logs.items()}


def positions(columns):
    """Where the rows of a log stand on the horizontal axis.

    Args:
        columns: Dict of arrays. With a column `"update"`, which counts from
            1, there is a row for each update, and else one for each epoch:
            the column `"epoch"` counts from 0, and so do rows without it.

    Returns:
        A pair of the name of the axis, `"Update"` or `"Epoch"`, and an array
        that counts from 1.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.plotting.positions import positions
    >>> positions({"epoch": np.array([0.0, 1.0])})
    ('Epoch', array([1., 2.]))
    """
    if "update" in columns:
        return "Update", columns["update"]
    rows = np.arange(len(next(iter(columns.values()), [])), dtype="float64")
    return "Epoch", columns.get("epoch", rows) + 1


def points(columns, name):
    """The points of a curve: rows in which a column has a number.

    Args:
        columns: Dict of arrays.
        name: Name of a column.

    Returns:
        A pair of arrays of one length, positions and values.

    Raises:
        ValueError: If there is no such column, or no number in it.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.plotting.positions import points
    >>> points({"loss": np.array([2.0, np.nan, 1.0])}, "loss")
    (array([1., 3.]), array([2., 1.]))
    """
    values = columns.get(name, np.array([]))
    shown = np.isfinite(values)
    if not shown.any():
        raise ValueError(
            f"A log lacks numbers in the column {name!r}. Expected it among "
            f"{list(columns)}, Received: name={name!r}"
        )
    return positions(columns)[1][shown], values[shown]
