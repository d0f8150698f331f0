"""Time series of the UCR archive, or of one's own in its format."""

import numpy as np

from tf_spectral import checks
from tf_spectral.datasets.files import check_name
from tf_spectral.datasets.files import data_folder
from tf_spectral.datasets.files import find_files
from tf_spectral.datasets.files import is_file
from tf_spectral.datasets.files import read_text
from tf_spectral.datasets.splits import stratified_split

ADVICE = (
    "Download the UCR Time Series Classification Archive (2018) from "
    "https://www.cs.ucr.edu/~eamonn/time_series_data_2018 and put its sets "
    "as ucr/NAME/NAME_TRAIN.tsv and ucr/NAME/NAME_TEST.tsv into "
    "$TF_SPECTRAL_DATA, or pass a folder with NAME/NAME_TRAIN.tsv and "
    "NAME/NAME_TEST.tsv. A line is a series: an integer label, then the "
    "values, with tabs between them."
)
LARGEST = float(np.finfo("float32").max)


def ucr(name, folder=None, validation_split=0.2, seed=0, swap=False):
    """Loads a set of labelled time series.

    The labels become 0, 1, ... in the order of the labels in the files,
    those of the training and of the test file together. The values are as in
    the files; those of the archive are mostly standardised, series by series.

    The training part is split in two, by `seed`, so that each class keeps
    its share: accuracies are to be read at the best validation error.

    Series must be complete and of one length. The archive stores missing
    values, and the ends of shorter series, as `NaN`; such sets are refused.

    Args:
        name: Name of the set, such as `"CBF"`: of a folder in `folder`.
        folder: Folder that holds `<name>/<name>_TRAIN.tsv` and
            `<name>/<name>_TEST.tsv`. `None` takes the folder `ucr` in the
            folder that the environment variable `TF_SPECTRAL_DATA` names.
            Nothing is downloaded. Defaults to `None`.
        validation_split: Share of the training series that is set apart, at
            least 0 and below 1. With 0 the validation arrays are empty.
            Defaults to `0.2`.
        seed: Non-negative integer, for the split. Defaults to `0`.
        swap: Whether to train on the test file and to test on the training
            file. The archive of 2018 has the parts of some sets, such as
            `"DistalPhalanxTW"`, the other way round than the paper, which
            trains on the smaller one. Defaults to `False`.

    Returns:
        `train, val, test, classes`: three pairs `(x, y)` of arrays, `x` of
        shape `(n, steps, 1)`, `float32`, and `y` of shape `(n,)`, `int32`;
        and the array of the labels in the files, so that `classes[y]` are
        those and `len(classes)` is the number of classes.

    Raises:
        ValueError: If an argument is out of its range, a file is absent (of
            some public copies the test file), or one is malformed: file and
            line are named.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.datasets import ucr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "Mine").mkdir()
    ...     for part in ("TRAIN", "TEST"):
    ...         path = pathlib.Path(folder, "Mine", f"Mine_{part}.tsv")
    ...         _ = path.write_text("1\\t0.5\\t0.25\\n2\\t0.0\\t1.0\\n" * 5)
    ...     train, val, test, classes = ucr("Mine", folder=folder)
    >>> train[0].shape, val[0].shape, test[0].shape, classes.tolist()
    ((8, 2, 1), (2, 2, 1), (10, 2, 1), [1, 2])

    Reference: Dau et al., [2018](https://arxiv.org/abs/1810.07758); Zhang et
    al., [2018](https://arxiv.org/abs/1803.09327), appendix C.1.
    """
    swap = checks.boolean("swap", swap)
    seed = checks.integer("seed", seed, minimum=0)
    validation_split = checks.fraction("validation_split", validation_split)
    names = _file_names(check_name(name))
    paths = find_files(names, "ucr", folder, ADVICE)
    (x, labels), (x_test, labels_test) = map(_read_series, paths)
    if x.shape[1] != x_test.shape[1]:
        raise ValueError(
            f"{paths[1]}: expected series of {x.shape[1]} values as in "
            f"{paths[0].name}, Received: {x_test.shape[1]} values"
        )
    classes, y = np.unique(
        np.concatenate([labels, labels_test]), return_inverse=True
    )
    y = y.astype("int32")
    train, test = (x, y[: len(x)]), (x_test, y[len(x) :])
    if swap:
        train, test = test, train
    rng = np.random.default_rng(seed)
    train, val = stratified_split(*train, validation_split, rng)
    return train, val, test, classes


def ucr_names(folder=None):
    """Names the sets that `ucr` finds in a folder.

    Args:
        folder: As in `tf_spectral.datasets.ucr`. Defaults to `None`.

    Returns:
        Sorted list of the names of the sets with both files. Their contents
        are not looked at.

    Raises:
        ValueError: If there is no such folder.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.datasets import ucr_names
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "Mine").mkdir()
    ...     for part in ("TRAIN", "TEST"):
    ...         pathlib.Path(folder, "Mine", f"Mine_{part}.tsv").touch()
    ...     ucr_names(folder)
    ['Mine']
    """
    root = data_folder("ucr", folder, ADVICE)
    return sorted(
        path.name
        for path in root.iterdir()
        if all(is_file(root / file) for file in _file_names(path.name))
    )


def _file_names(name):
    return [f"{name}/{name}_{part}.tsv" for part in ("TRAIN", "TEST")]


def _read_series(path):
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            row = _parse_row(f"{path}, line {number}", line.split("\t"))
            _check_length(f"{path}, line {number}", row, rows)
            rows.append(row)
    if not rows:
        raise ValueError(f"{path}: expected series, Received: no line")
    table = np.array(rows)
    return table[:, 1:, None].astype("float32"), table[:, 0].astype("int64")


def _parse_row(place, fields):
    if len(fields) < 2:
        raise ValueError(
            f"{place}: expected a label and at least one value with tabs "
            f"between them, Received: {fields[0][:40]!r}"
        )
    row = [_parse_number(place, c, field) for c, field in enumerate(fields, 1)]
    if not row[0].is_integer() or abs(row[0]) >= 2**53:
        raise ValueError(
            f"{place}: expected an integer label in column 1, below 2**53, "
            f"Received: {fields[0]!r}"
        )
    return row


def _parse_number(place, column, field):
    try:
        number = float(field)
        if "_" in field:
            # Python's way to write thousands, of no file.
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{place}: expected a number in column {column}, "
            f"Received: {field!r}"
        ) from None
    if not abs(number) <= LARGEST:
        raise ValueError(
            f"{place}: expected a finite float32 number in column {column}, "
            f"Received: {field!r}. Fill in missing values, and bring the "
            "series to one length, first."
        )
    return number


def _check_length(place, row, rows):
    if rows and len(row) != len(rows[0]):
        raise ValueError(
            f"{place}: expected a label and {len(rows[0]) - 1} values as in "
            f"the first series, Received: {len(row) - 1} values. Bring the "
            "series to one length first."
        )
