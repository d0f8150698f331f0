"""Labelled series from .tsv files: labels, splits, malformed rows."""

import os
import pathlib

import numpy as np
import pytest

from tf_spectral.datasets import ucr
from tf_spectral.datasets import ucr_names

SHARED = os.environ.get("TF_SPECTRAL_DATA")
# Train, test, length, labels (design: README of the data folder).
REAL = {
    "Adiac": (390, 391, 176, range(1, 38)),
    "ArrowHead": (36, 175, 251, range(3)),
    "CBF": (30, 900, 128, (1, 2, 3)),
    "Coffee": (28, 28, 286, (0, 1)),
    "CricketX": (390, 390, 300, range(1, 13)),
    "DistalPhalanxOutlineCorrect": (600, 276, 80, (0, 1)),
    "DistalPhalanxTW": (400, 139, 80, range(3, 9)),
    "ECG200": (100, 100, 96, (-1, 1)),
    "ECGFiveDays": (23, 861, 136, (1, 2)),
    "FaceAll": (560, 1690, 131, range(1, 15)),
    "FacesUCR": (200, 2050, 131, range(1, 15)),
    "GunPoint": (50, 150, 150, (1, 2)),
    "ItalyPowerDemand": (67, 1029, 24, (1, 2)),
    "Lightning2": (60, 61, 637, (-1, 1)),
    "MiddlePhalanxOutlineCorrect": (600, 291, 80, (0, 1)),
    "MiddlePhalanxTW": (399, 154, 80, range(3, 9)),
}
NO_TEST_FILE = ("ECG5000", "InsectWingbeatSound")
needs_shared_data = pytest.mark.skipif(
    not SHARED or not (pathlib.Path(SHARED) / "ucr").exists(),
    reason="TF_SPECTRAL_DATA is unset or has no ucr: the folder with series",
)


def write_lines(folder, part, lines, name="Mine"):
    (folder / name).mkdir(exist_ok=True)
    path = folder / name / f"{name}_{part}.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    """Labels -1, 3, 7; no 3 in the training file, no 7 in the test file."""
    labels = [-1, 7] * 5
    train = [f"{y}\t{i}.5\t{-i}\t1e-3" for i, y in enumerate(labels)]
    write_lines(tmp_path, "TRAIN", train)
    write_lines(
        tmp_path, "TEST", ["3\t1\t2\t3", "", "-1\t4\t5\t6", "3\t7\t8\t9"]
    )
    return tmp_path


def test_values_and_labels(folder):
    train, val, test, classes = ucr("Mine", folder)
    assert classes.tolist() == [-1, 3, 7]
    assert test[0].tolist() == [
        [[1], [2], [3]],
        [[4], [5], [6]],
        [[7], [8], [9]],
    ]
    assert classes[test[1]].tolist() == [3, -1, 3]
    assert [len(y) for _, y in (train, val, test)] == [8, 2, 3]
    for x, y in (train, val, test):
        assert x.shape == (len(y), 3, 1)
        assert x.dtype == np.float32 and y.dtype == np.int32
    x, y = (np.concatenate(arrays) for arrays in zip(train, val))
    order = np.argsort(x[:, 0, 0])
    np.testing.assert_array_equal(x[order, 0, 0], np.arange(10) + 0.5)
    np.testing.assert_array_equal(x[order, 1, 0], -np.arange(10))
    np.testing.assert_array_equal(classes[y[order]], [-1, 7] * 5)


def test_validation_is_stratified_and_seeded(folder):
    first, again = (ucr("Mine", folder, 0.4, seed=1) for _ in range(2))
    for a, b in zip(first[:3], again[:3]):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert np.bincount(first[1][1]).tolist() == [2, 0, 2]
    splits = {ucr("Mine", folder, seed=s)[1][0].tobytes() for s in range(9)}
    assert len(splits) > 1
    train, val, _, _ = ucr("Mine", folder, validation_split=0)
    assert len(train[1]) == 10 and val[0].shape == (0, 3, 1)


def test_swap_exchanges_the_files(folder):
    plain = ucr("Mine", folder, validation_split=0)
    train, val, test, classes = ucr("Mine", folder, 0, swap=True)
    np.testing.assert_array_equal(classes, plain[3])
    assert sorted(classes[train[1]]) == [-1, 3, 3]
    assert len(val[1]) == 0 and classes[test[1]].tolist() == [-1, 7] * 5


@pytest.mark.parametrize(
    "line, what",
    (
        ("1\t2\t3", "3 values.*Received: 2 values"),
        ("1\t2\t3\t4\t5", "3 values.*Received: 4 values"),
        ("1\t2\ttwo\t4", "number in column 3.*'two'"),
        ("1\t2\t\t4", "number in column 3.*''"),
        ("1\t2\t3\tNaN", "finite.*column 4.*'NaN'.*missing values.*length"),
        ("1\t2\t-inf\t3", "finite.*column 3.*'-inf'"),
        ("1\t2\t1e39\t3", "finite.*column 3.*'1e39'"),
        ("0.25\t2\t3\t4", "integer label.*'0.25'"),
        ("1e30\t2\t3\t4", "integer label.*'1e30'"),
        ("nan\t2\t3\t4", "column 1.*'nan'"),
        ("1,2,3,4", "tabs.*'1,2,3,4'"),
    ),
)
def test_malformed_rows(folder, line, what):
    path = write_lines(folder, "TEST", ["3\t1\t2\t3", "", line])
    with pytest.raises(ValueError, match=rf"{path}, line 3: expected .*{what}"):
        ucr("Mine", folder)


def test_malformed_files(folder):
    path = write_lines(folder, "TEST", ["3\t1\t2"])
    with pytest.raises(ValueError, match=rf"{path}.*3 values.*TRAIN.*2 values"):
        ucr("Mine", folder)
    path = write_lines(folder, "TEST", [""])
    with pytest.raises(ValueError, match=rf"{path}.*no line"):
        ucr("Mine", folder)


def test_missing_files_say_what_to_get(folder, monkeypatch):
    with pytest.raises(
        ValueError, match=r"A_TRAIN.tsv and .*A_TEST.tsv.*cs.ucr"
    ):
        ucr("A", folder)
    write_lines(folder, "TRAIN", ["1\t2"], "B")
    with pytest.raises(ValueError, match=r"Expected \S*B_TEST.tsv\..*cs.ucr"):
        ucr("B", folder)
    assert ucr_names(folder) == ["Mine"]
    monkeypatch.delenv("TF_SPECTRAL_DATA", raising=False)
    for load in (lambda: ucr("Mine"), ucr_names):
        with pytest.raises(ValueError, match=r"folder ucr/.*TF_SPECTRAL_DATA="):
            load()
    folder.rename(folder.parent / "ucr")
    monkeypatch.setenv("TF_SPECTRAL_DATA", str(folder.parent))
    assert ucr_names() == ["Mine"]
    assert len(ucr("Mine")[2][1]) == 3


@pytest.mark.parametrize("arguments", ({"seed": -1}, {"validation_split": 1.0}))
def test_wrong_arguments(arguments, folder):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        ucr("Mine", folder, **arguments)


@needs_shared_data
@pytest.mark.parametrize("name", REAL)
def test_the_real_sets(name):
    if not (pathlib.Path(SHARED) / "ucr" / name).exists():
        pytest.skip(f"{SHARED} does not hold ucr/{name}")
    count, tests, steps, labels = REAL[name]
    train, val, test, classes = ucr(name)
    apart = round(count / 5)
    assert train[0].shape == (count - apart, steps, 1)
    assert val[0].shape == (apart, steps, 1)
    assert test[0].shape == (tests, steps, 1)
    assert classes.tolist() == list(labels)
    # float32 files: standardised to a few digits.
    assert abs(test[0].mean()) < 0.01
    assert name in ucr_names()


@needs_shared_data
@pytest.mark.parametrize("name", NO_TEST_FILE)
def test_real_sets_without_test_file(name):
    if (pathlib.Path(SHARED) / "ucr" / name / f"{name}_TEST.tsv").exists():
        pytest.skip("this data folder has the test file")
    assert name not in ucr_names()
    with pytest.raises(ValueError, match=f"{name}_TEST.tsv"):
        ucr(name)
