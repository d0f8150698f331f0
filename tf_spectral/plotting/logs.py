"""Logs of runs: columns of numbers, one row for each epoch."""

import collections.abc
import csv
import os

import numpy as np

from tf_spectral import checks


def read_log(path):
    """Reads a file of `keras.callbacks.CSVLogger`.

    Args:
        path: Path of a CSV file with a header.

    Returns:
        A dict of name of column -> `float64` array of shape `(rows,)`. Cells
        that hold no number are NaN: empty ones, those that a line cut short
        lacks, and what `CSVLogger` writes for a missing value, `NA`.

    Raises:
        ValueError: If the file has no header.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.plotting import read_log
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "run.csv")
    ...     _ = path.write_text("epoch,loss\\n0,0.5\\n1,NA\\n")
    ...     read_log(path)["loss"].tolist()
    [0.5, nan]
    """
    # `open` also takes the number of a file that is open: 0 waits for a user.
    with open(checks.path("path", path), newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames
        rows = list(reader)
    if not names:
        raise ValueError(
            "Argument `path` must be a CSV file with a header. Expected names "
            f"of columns in its first line, Received: path={os.fspath(path)!r}"
        )
    return {
        name: np.array([_to_float(row[name]) for row in rows], dtype="float64")
        for name in names
    }


def to_columns(log):
    """Turns a log, a path or a dict of columns, into a dict of arrays.

    Args:
        log: Path of a file of `keras.callbacks.CSVLogger`, or a dict of name
            of column -> sequence of numbers.

    Returns:
        A dict of name of column -> `float64` array of shape `(rows,)`.

    Raises:
        ValueError: If `log` is neither, or its columns differ in length, as
            those of a `History` with `validation_freq=2` do.

    Example:

    >>> from tf_spectral.plotting.logs import to_columns
    >>> to_columns({"loss": [2, 1]})["loss"]
    array([2., 1.])
    """
    if isinstance(log, (str, os.PathLike)):
        return read_log(log)
    if not isinstance(log, collections.abc.Mapping):
        raise ValueError(
            "Argument `log` must be a log of a run. Expected a path or a dict "
            f"of columns, Received: log={log!r}"
        )
    columns = {
        name: np.asarray(column, dtype="float64")
        for name, column in log.items()
    }
    shapes = {name: column.shape for name, column in columns.items()}
    is_series = all(len(shape) == 1 for shape in shapes.values())
    if not is_series or len(set(shapes.values())) > 1:
        raise ValueError(
            "Argument `log` must have a number of each column for each epoch. "
            "Expected columns of one shape (epochs,), "
            f"Received: log of shapes {shapes}"
        )
    return columns


def series(columns, *names):
    """Picks the epochs at which columns have numbers, and the numbers.

    Args:
        columns: A dict of arrays, as of `to_columns`.
        *names: Names of columns; they may be missing.

    Returns:
        A list of arrays of one length: the epochs, counted from 1
        (`CSVLogger` counts from 0), at which all the columns are finite, then
        the values of each column there. All are empty if there are none.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.plotting.logs import series
    >>> series({"loss": np.array([2.0, np.nan, 1.0])}, "loss")
    [array([1., 3.]), array([2., 1.])]
    """
    if not all(name in columns for name in names):
        return [np.array([])] * (1 + len(names))
    values = np.stack([columns[name] for name in names])
    numbers = np.arange(values.shape[1], dtype="float64")
    epochs = columns.get("epoch", numbers) + 1
    shown = np.isfinite(values).all(axis=0)
    return [epochs[shown], *values[:, shown]]


def _to_float(cell):
    try:
        return float(cell)
    except (TypeError, ValueError):
        return np.nan
