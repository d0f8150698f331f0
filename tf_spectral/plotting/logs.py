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


def is_log(value):
    """Whether a value can be a log: a path, columns or what `fit` returns.

    Args:
        value: Anything.

    Returns:
        Boolean.

    Example:

    >>> from tf_spectral.plotting.logs import is_log
    >>> is_log("run.csv"), is_log([1.0, 0.5])
    (True, False)
    """
    kinds = (str, os.PathLike, collections.abc.Mapping)
    return isinstance(value, kinds) or _is_history(value)


def _is_history(value):
    # As `keras.callbacks.History`; figures need no Keras.
    history = getattr(value, "history", None)
    return isinstance(history, collections.abc.Mapping)


def to_columns(log, name="log"):
    """Turns a log into a dict of arrays.

    Args:
        log: Path of a file of `keras.callbacks.CSVLogger`, the `History` that
            `fit` returns, a monitor with such a `history`, or a dict of name
            of column -> sequence of numbers.
        name: String, the argument, for errors. Defaults to `"log"`.

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
        return read_log(checks.path(name, log))
    if _is_history(log):
        # A monitor keeps the epochs with its measurements.
        epochs = {"epoch": log.epoch} if hasattr(log, "epoch") else {}
        log = {**epochs, **log.history}
    if not isinstance(log, collections.abc.Mapping):
        raise ValueError(
            f"Argument `{name}` must be a log of a run. Expected a path, a "
            f"dict of columns or a History, Received: {name}={log!r}"
        )
    columns = {
        name: np.asarray(column, dtype="float64")
        for name, column in log.items()
    }
    shapes = {name: column.shape for name, column in columns.items()}
    is_series = all(len(shape) == 1 for shape in shapes.values())
    if not is_series or len(set(shapes.values())) > 1:
        raise ValueError(
            f"Argument `{name}` must have a number of each column for each "
            "epoch. Expected columns of one shape (epochs,); where they "
            "differ, as with `validation_freq`, give the file of a CSVLogger. "
            f"Received: {name} of shapes {shapes}"
        )
    return columns


def labelled_logs(logs):
    """Turns logs into a dict of label -> columns.

    Args:
        logs: Dict of label -> log, as `to_columns` takes them.

    Returns:
        Dict of label -> dict of arrays.

    Raises:
        ValueError: If `logs` is no dict or holds nothing.

    Example:

    >>> from tf_spectral.plotting.logs import labelled_logs
    >>> labelled_logs({"DSGD": {"loss": [2, 1]}})["DSGD"]["loss"]
    array([2., 1.])
    """
    if not isinstance(logs, collections.abc.Mapping) or not logs:
        raise ValueError(
            "Argument `logs` must hold a log. Expected a dict of label -> "
            f"path, columns or History, Received: logs={logs!r}"
        )
    return {str(label): to_columns(log, "logs") for label, log in logs.items()}


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
    >>> from tf_spectral.plotting.logs import positions
    >>> positions({"epoch": np.array([0.0, 1.0])})
    ('Epoch', array([1., 2.]))
    """
    if "update" in columns:
        return "Update", columns["update"]
    rows = np.arange(len(next(iter(columns.values()), [])), dtype="float64")
    return "Epoch", columns.get("epoch", rows) + 1


def common_axis(logs):
    """The name of the horizontal axis of several logs.

    Args:
        logs: Dict of label -> dict of arrays.

    Returns:
        `"Update"` or `"Epoch"`.

    Raises:
        ValueError: If some have a row for each update, others one for each
            epoch: they have no axis in common.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.plotting.logs import common_axis
    >>> common_axis({"SGD": {"loss": np.array([2.0, 1.0])}})
    'Epoch'
    """
    names = {label: positions(log)[0] for label, log in logs.items()}
    if len(set(names.values())) > 1:
        raise ValueError(
            "Argument `logs` must count the same. Expected a column 'update' "
            f"in all logs or in none, Received: logs that count {names}"
        )
    return next(iter(names.values()))


def points(columns, *names, least=1, argument="logs"):
    """The points of curves: rows in which columns have numbers.

    Args:
        columns: Dict of arrays.
        *names: Names of columns.
        least: Integer, how many rows there have to be. Defaults to `1`.
        argument: What the caller calls what is wrong. Defaults to `"logs"`.

    Returns:
        A list of arrays of one length: the positions of the rows in which all
        the columns are finite, and the values of each column there.

    Raises:
        ValueError: If a column is missing, or there are fewer rows.

    Example:

    >>> import numpy as np
    >>> from tf_spectral.plotting.logs import points
    >>> points({"loss": np.array([2.0, np.nan, 1.0])}, "loss")
    [array([1., 3.]), array([2., 1.])]
    """
    values = [columns.get(name, np.array([])) for name in names]
    shown = np.isfinite(values).all(axis=0) if all(map(len, values)) else []
    if np.sum(shown) < least:
        raise ValueError(
            f"Argument `{argument}` must lead to columns with numbers. "
            f"Expected some of {list(columns)}, Received: "
            f"{', '.join(map(repr, names))}"
        )
    return [positions(columns)[1][shown], *(v[shown] for v in values)]


def _to_float(cell):
    try:
        return float(cell)
    except (TypeError, ValueError):
        return np.nan
