"""The text format of the extreme classification repository."""

import numpy as np

from tf_spectral.datasets.arrays import check_room
from tf_spectral.datasets.files import read_text

LARGEST = float(np.finfo("float32").max)


def read_sparse_text(path):
    """Reads examples with several labels each, as dense arrays.

    The first line holds the numbers of examples, features and labels. Each
    of the others is an example, `label,label feature:value feature:value`,
    numbered from 0. An example without labels begins with its features, and
    what is not listed is zero.

    Args:
        path: A `pathlib.Path`.

    Returns:
        `x, y`: `float32` arrays of shapes `(examples, features)` and
        `(examples, labels)`, the latter of zeros and ones.

    Raises:
        ValueError: If the file is malformed: file and line are named.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.datasets.sparse_text import read_sparse_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "set_data.txt")
    ...     _ = path.write_text("2 3 2\\n0,1 0:0.5 2:1\\n1 1:2\\n")
    ...     x, y = read_sparse_text(path)
    >>> x.tolist(), y.tolist()
    ([[0.5, 0.0, 1.0], [0.0, 2.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]])

    Reference: Bhatia et al., "The extreme classification repository",
    http://manikvarma.org/downloads/XC/XMLRepository.html
    """
    first, *lines = read_text(path).removesuffix("\n").split("\n")
    rows, features, labels = _parse_header(path, first)
    while len(lines) > rows and not lines[-1].strip():
        lines.pop()
    if len(lines) != rows:
        raise ValueError(
            f"{path}: expected {rows} examples as the first line says, "
            f"Received: {len(lines)}"
        )
    check_room(f"{path}, line 1", (rows, features), (rows, labels))
    x = np.zeros((rows, features), dtype="float32")
    y = np.zeros((rows, labels), dtype="float32")
    for row, line in enumerate(lines):
        place = f"{path}, line {row + 2}"
        tokens = line.split()
        if tokens and ":" not in tokens[0]:
            y[row, _parse_labels(place, tokens.pop(0), labels)] = 1
        columns, values = _parse_features(place, tokens, features)
        x[row, columns] = values
    return x, y


def _parse_header(path, line):
    try:
        rows, features, labels = map(_to_int, line.split())
    except ValueError:
        rows = features = labels = 0
    if min(rows, features, labels) < 1:
        raise ValueError(
            f"{path}, line 1: expected three positive integers, the numbers "
            f"of examples, features and labels, Received: {line[:40]!r}"
        )
    return rows, features, labels


def _parse_labels(place, token, labels):
    try:
        indices = [_to_int(label) for label in token.split(",")]
    except ValueError:
        indices = [-1]
    if min(indices) < 0 or max(indices) >= labels:
        raise ValueError(
            f"{place}: expected labels with commas between them, integers "
            f"from 0 to {labels - 1}, Received: {token!r}"
        )
    return indices


def _parse_features(place, tokens, features):
    try:
        return _split_features(tokens, features)
    except ValueError:
        wrong = next(t for t in tokens if not _is_feature(t, features))
        raise ValueError(
            f"{place}: expected feature:value with an integer feature from 0 "
            f"to {features - 1} and a finite float32 value, "
            f"Received: {wrong!r}"
        ) from None


def _is_feature(token, features):
    try:
        _split_features([token], features)
    except ValueError:
        return False
    return True


def _split_features(tokens, features):
    pairs = [token.split(":") for token in tokens]
    columns = [_to_int(column) for column, _ in pairs]
    values = [float(value) for _, value in pairs]
    if columns and not 0 <= min(columns) <= max(columns) < features:
        raise ValueError
    if not all(abs(value) <= LARGEST for value in values):
        raise ValueError
    if any("_" in value for _, value in pairs):
        # Python's way to write thousands, of no file.
        raise ValueError
    return columns, values


def _to_int(text):
    if "_" in text:
        raise ValueError
    return int(text)
