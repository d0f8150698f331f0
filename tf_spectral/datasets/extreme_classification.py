"""Multi-label classification: each example has a set of labels."""

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.files import ArrayFile
from tf_spectral.datasets.files import check_name
from tf_spectral.datasets.files import check_room
from tf_spectral.datasets.files import data_folder
from tf_spectral.datasets.files import is_file
from tf_spectral.datasets.files import missing
from tf_spectral.datasets.files import read_text
from tf_spectral.datasets.splits import random_split

TEST_SPLIT = 0.2
LARGEST = float(np.finfo("float32").max)
ADVICE = (
    "Download the set from the extreme classification repository, "
    "http://manikvarma.org/downloads/XC/XMLRepository.html, and put its files "
    "NAME_data.txt, NAME_trSplit.txt and NAME_tstSplit.txt (as for Bibtex and "
    "Mediamill) or NAME_train.txt and NAME_test.txt into the folder "
    "multilabel of $TF_SPECTRAL_DATA, or into one that you pass. A first line "
    "holds the numbers of examples, features and labels, each further line an "
    "example as label,label feature:value feature:value. Or put a NAME.npz "
    "there with the arrays x_train, y_train, x_test and y_test, or x and y."
)


def multilabel(
    name="bibtex", folder=None, validation_split=0.0, seed=0, split=0
):
    """Loads a multi-label dataset.

    | `name`        | features | labels | train  | test   |
    |---------------|----------|--------|--------|--------|
    | `"bibtex"`    | 1836     | 159    | 4880   | 2515   |
    | `"mediamill"` | 120      | 101    | 30,993 | 12,914 |

    Any other name works too if the folder holds, whether in capitals or not,

    1.  `<name>.npz` with the arrays `x_train`, `y_train`, `x_test`, `y_test`,
        or with `x` and `y` alone; a fifth is then set apart as test set, by
        `seed`, and results compare with nothing published;
    2.  `<name>_train.txt` and `<name>_test.txt`, in the sparse text format of
        the extreme classification repository;
    3.  `<name>_data.txt` in that format, with `<name>_trSplit.txt` and
        `<name>_tstSplit.txt`: the numbers, from 1, of the examples of either
        part, a column for each of several splits;

    in this order. The arrays are dense: sets with some thousands of features
    and labels fit into memory, the extreme ones do not.

    Args:
        name: Name of the set. Defaults to `"bibtex"`.
        folder: Folder with the files. `None` takes the folder `multilabel`
            in the folder that the environment variable `TF_SPECTRAL_DATA`
            names. Nothing is downloaded. Defaults to `None`.
        validation_split: Share of the training examples that is set apart at
            random, at least 0 and below 1. With 0 the validation arrays are
            empty. Defaults to `0.0`.
        seed: Non-negative integer, for the splits. Defaults to `0`.
        split: Column of the split files, from 0, a non-negative integer.
            Ignored for the other formats. Defaults to `0`.

    Returns:
        Three pairs `(x_train, y_train), (x_val, y_val), (x_test, y_test)` of
        `float32` arrays: `x` of shape `(n, features)`, as in the files, and
        `y` of shape `(n, labels)`, zeros and ones.

    Raises:
        ValueError: If an argument is out of its range, or a file is absent
            or malformed.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> import numpy as np
    >>> from tf_spectral.datasets import multilabel
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(
    ...         pathlib.Path(folder, "mine.npz"),
    ...         x_train=np.random.rand(8, 5), y_train=np.ones((8, 2)),
    ...         x_test=np.random.rand(4, 5), y_test=np.ones((4, 2)),
    ...     )
    ...     train, val, test = multilabel("mine", folder=folder)

    Precision among the k highest scores is
    `keras.metrics.Precision(top_k=k)`.

    Reference: Bhatia et al., "The extreme classification repository", 2016;
    Zhang et al., [2018](https://arxiv.org/abs/1803.09327), appendix C.1.1.
    """
    check_name(name)
    seed = checks.integer("seed", seed, minimum=0)
    split = checks.integer("split", split, minimum=0)
    validation_split = checks.fraction("validation_split", validation_split)
    train, test = _load(name, folder, split)
    rng = np.random.default_rng(seed)
    if test is None:
        train, test = random_split(*train, TEST_SPLIT, rng)
    train, val = random_split(*train, validation_split, rng)
    return train, val, test


def _load(name, folder, split):
    root = data_folder("multilabel", folder, ADVICE)
    there = [path for path in root.iterdir() if is_file(path)]
    files = {path.name.lower(): path for path in there}

    def find(*endings):
        paths = [files.get(f"{name}{end}".lower()) for end in endings]
        return paths if all(paths) else None

    if paths := find(".npz"):
        return _read_npz(*paths)
    if paths := find("_train.txt", "_test.txt"):
        train, test = map(read_sparse_text, paths)
        _check_alike(paths[1], train, test)
        return train, test
    if paths := find("_data.txt", "_trSplit.txt", "_tstSplit.txt"):
        x, y = read_sparse_text(paths[0])
        train, test = (_read_split(path, split, len(x)) for path in paths[1:])
        if shared := set(train).intersection(test):
            raise ValueError(
                f"{paths[2]}: expected other examples than in "
                f"{paths[1].name}, Received: {min(shared) + 1} in both"
            )
        return (x[train], y[train]), (x[test], y[test])
    what = f"the files of {name!r} in {root}"
    raise missing(what, folder, ADVICE)


def _read_npz(path):
    with ArrayFile(path) as arrays:
        names = set(arrays.names)
        for parts in (("_train", "_test"), ("",)):
            if all(names >= {"x" + part, "y" + part} for part in parts):
                pairs = [_read_pair(path, arrays, part) for part in parts]
                break
        else:
            raise ValueError(
                f"{path}: expected arrays x_train, y_train, x_test and "
                f"y_test, or x and y, Received: {sorted(names)}"
            )
    if len(pairs) == 1:
        return pairs[0], None
    _check_alike(path, *pairs)
    return pairs


def _read_pair(path, arrays, part):
    x, y = arrays.read("x" + part), arrays.read("y" + part)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(
            f"{path}: expected x{part} and y{part} of shapes (n, features) "
            f"and (n, labels), Received: {x.shape} and {y.shape}"
        )
    with np.errstate(over="ignore"):
        x = x.astype("float32")
    if not np.isfinite(x).all():
        raise ValueError(f"{path}: expected finite numbers in x{part}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"{path}: expected zeros and ones in y{part}")
    return x, y.astype("float32")


def _check_alike(path, train, test):
    widths = [tuple(a.shape[1] for a in pair) for pair in (train, test)]
    if widths[0] != widths[1]:
        raise ValueError(
            f"{path}: expected as many features and labels in the test part "
            f"as in the training part, {widths[0]}, Received: {widths[1]}"
        )


def _read_split(path, split, count):
    numbers = []
    for line_number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        field = fields[split] if split < len(fields) else ""
        # Python reads no number of more than 4300 digits.
        is_number = field.isdecimal() and len(field) < 20
        if not is_number or not 1 <= int(field) <= count:
            raise ValueError(
                f"{path}, line {line_number}: expected in column {split + 1} "
                f"(split={split}) the number of an example, 1 to {count}, "
                f"Received: {field!r}"
            )
        numbers.append(int(field) - 1)
    if not numbers:
        raise ValueError(
            f"{path}: expected numbers of examples, Received: none"
        )
    return numbers


def read_sparse_text(path):
    """Reads a multi-label file as dense arrays.

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
    >>> from tf_spectral.datasets.extreme_classification import read_sparse_text
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
