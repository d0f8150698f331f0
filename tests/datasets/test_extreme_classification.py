"""Several labels an example: three layouts of files, and what is wrong."""

import os
import pathlib

import numpy as np
import pytest

from tf_spectral.datasets import multilabel

SHARED = os.environ.get("TF_SPECTRAL_DATA")
X = np.arange(40).reshape(10, 4) / 8.0
Y = (np.add.outer(np.arange(10), np.arange(3)) % 3 == 0).astype("uint8")


def sparse_lines(x, y):
    yield f"{len(x)} {x.shape[1]} {y.shape[1]}"
    for row, labels in zip(x, y):
        names = ",".join(str(i) for i in np.flatnonzero(labels))
        pairs = [f"{j}:{row[j]:.6f}" for j in np.flatnonzero(row)]
        yield " ".join([names, *pairs])


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def save(folder, **arrays):
    np.savez(folder / "mine.npz", **arrays)
    return folder


def save_parts(folder, **changes):
    train, test = (X[:6], Y[:6]), (X[6:], Y[6:])
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), train + test))
    return save(folder, **(arrays | changes))


def write_data(folder, train=range(6), test=range(6, 10)):
    """As published: names in two cases, a column for each split."""
    write_lines(folder / "Mine_data.txt", sparse_lines(X, Y))
    for file, part in (("mine_trSplit", train), ("mine_tstSplit", test)):
        lines = [f"{10 - i} {i + 1}" for i in part]
        write_lines(folder / f"{file}.txt", lines)
    return folder


def assert_parts(parts):
    for (x, y), where in zip(parts, (slice(6), slice(0), slice(6, 10))):
        assert x.dtype == y.dtype == np.float32
        assert x.shape[1] == 4 and y.shape[1] == 3
        order = np.argsort(x[:, -1])
        np.testing.assert_array_equal(x[order], X[where])
        np.testing.assert_array_equal(y[order], Y[where])


def test_npz(tmp_path):
    assert_parts(multilabel("mine", save_parts(tmp_path)))


def test_train_and_test_texts(tmp_path):
    for part, where in (("train", slice(6)), ("test", slice(6, 10))):
        lines = sparse_lines(X[where], Y[where])
        write_lines(tmp_path / f"mine_{part}.txt", lines)
    assert_parts(multilabel("mine", tmp_path))


def test_one_text_with_splits(tmp_path):
    write_data(tmp_path)
    assert_parts(multilabel("mine", tmp_path, split=1))
    train, _, test = multilabel("Mine", tmp_path, split=0)
    assert sorted(test[0][:, -1]) == X[:4, -1].tolist()
    assert sorted(train[0][:, -1]) == X[4:, -1].tolist()


def test_examples_without_labels_or_features(tmp_path):
    lines = ["4 3 2", " 0:1 2:-2.5e-1", "1", "", "0,1\t1:2"]
    for part in ("train", "test"):
        write_lines(tmp_path / f"mine_{part}.txt", lines)
    _, _, (x, y) = multilabel("mine", tmp_path)
    assert x.tolist() == [[1, 0, -0.25], [0] * 3, [0] * 3, [0, 2, 0]]
    assert y.tolist() == [[0, 0], [0, 1], [0, 0], [1, 1]]


def test_a_set_without_test_part(tmp_path):
    save(tmp_path, x=X, y=Y)
    parts = multilabel("mine", tmp_path, validation_split=0.25, seed=3)
    assert [len(x) for x, _ in parts] == [6, 2, 2]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts))
    order = np.argsort(x[:, 0])
    np.testing.assert_array_equal(x[order], X)
    np.testing.assert_array_equal(y[order], Y)
    again = multilabel("mine", tmp_path, validation_split=0.25, seed=3)
    for (a, _), (b, _) in zip(parts, again):
        np.testing.assert_array_equal(a, b)
    several = [multilabel("mine", tmp_path, seed=s)[2] for s in range(9)]
    assert len({x.tobytes() for x, _ in several}) > 1


@pytest.mark.parametrize(
    "number, line, what",
    (
        (1, "10 4", "three positive integers.*'10 4'"),
        (1, "0 4 3", "three positive integers.*'0 4 3'"),
        (1, "10 4 x", "three positive integers.*'10 4 x'"),
        (3, "0,3 1:2", "0 to 2.*'0,3'"),
        (3, "-1 1:2", "0 to 2.*'-1'"),
        (3, "0,a 1:2", "0 to 2.*'0,a'"),
        (3, "0, 1:2", "0 to 2.*'0,'"),
        (4, "0 1:2 4:1", "0 to 3.*'4:1'"),
        (4, "0 1:2 -1:1", "0 to 3.*'-1:1'"),
        (4, "0 1:2 2", "feature:value.*'2'"),
        (4, "0 1:2 2:b", "feature:value.*'2:b'"),
        (4, "0 1:nan", "finite.*'1:nan'"),
        (4, "0 1:2 2:1:3", "feature:value.*'2:1:3'"),
    ),
)
def test_malformed_lines(tmp_path, number, line, what):
    write_data(tmp_path)
    path = tmp_path / "Mine_data.txt"
    lines = list(sparse_lines(X, Y))
    lines[number - 1] = line
    write_lines(path, lines)
    match = rf"{path}, line {number}: expected .*{what}"
    with pytest.raises(ValueError, match=match):
        multilabel("mine", tmp_path)


@pytest.mark.parametrize("change", (-1, 1))
def test_wrong_number_of_examples(tmp_path, change):
    write_data(tmp_path)
    lines = list(sparse_lines(X, Y))
    lines = lines[:-1] if change < 0 else [*lines, "0 1:2"]
    path = write_lines(tmp_path / "Mine_data.txt", lines)
    with pytest.raises(ValueError, match=f"{path}.*10 ex.*: {10 + change}$"):
        multilabel("mine", tmp_path)


def test_malformed_splits(tmp_path):
    write_data(tmp_path, test=range(5, 10))
    with pytest.raises(ValueError, match="tstSplit.*trSplit.*5 in both"):
        multilabel("mine", tmp_path)
    path = write_data(tmp_path) / "mine_trSplit.txt"
    with pytest.raises(ValueError, match=rf"{path}, line 1:.*split=2"):
        multilabel("mine", tmp_path, split=2)
    for wrong in ("0", "11", "x", "1.5"):
        write_lines(path, ["1", wrong])
        with pytest.raises(ValueError, match=rf"{path}, line 2:.*'{wrong}'"):
            multilabel("mine", tmp_path)
    write_lines(path, [""])
    with pytest.raises(ValueError, match=rf"{path}: .*none"):
        multilabel("mine", tmp_path)


@pytest.mark.parametrize(
    "changes, what",
    (
        ({"x_test": X[5:]}, r"x_test and y_test.*\(5, 4\) and \(4, 3\)"),
        ({"x_test": X[6:, 0]}, r"x_test and y_test.*\(4,\)"),
        ({"x_test": X[6:, :3]}, r"\(4, 3\), Received: \(3, 3\)"),
        ({"x_train": np.full((6, 4), np.nan)}, "finite numbers in x_train"),
        ({"y_test": 2 * Y[6:]}, "zeros and ones in y_test"),
    ),
)
def test_malformed_arrays(tmp_path, changes, what):
    save_parts(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"mine.npz: expected .*{what}"):
        multilabel("mine", tmp_path)


def test_malformed_npz(tmp_path):
    save(tmp_path, images=X, y_train=Y)
    with pytest.raises(ValueError, match=r"x and y.*'images', 'y_train'"):
        multilabel("mine", tmp_path)
    (tmp_path / "mine.npz").write_text("not a zip file")
    with pytest.raises(ValueError, match=r"mine.npz: expected an .npz file"):
        multilabel("mine", tmp_path)


def test_missing_files_say_what_to_get(tmp_path, monkeypatch):
    write_data(tmp_path)
    (tmp_path / "mine_trSplit.txt").unlink()
    match = "'mine' in .*XMLRepository.*NAME_data.txt.*NAME.npz.*Received"
    with pytest.raises(ValueError, match=match):
        multilabel("mine", tmp_path)
    monkeypatch.delenv("TF_SPECTRAL_DATA", raising=False)
    with pytest.raises(ValueError, match="multilabel/.*TF_SPECTRAL_DATA=None"):
        multilabel()
    save_parts(tmp_path).rename(tmp_path.parent / "multilabel")
    monkeypatch.setenv("TF_SPECTRAL_DATA", str(tmp_path.parent))
    assert_parts(multilabel("mine"))


@pytest.mark.parametrize(
    "arguments", ({"seed": -1}, {"split": -1}, {"validation_split": 1.0})
)
def test_wrong_arguments(arguments, tmp_path):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        multilabel("mine", save_parts(tmp_path), **arguments)


@pytest.mark.parametrize(
    "name, shapes, labels_a_row",
    (
        ("bibtex", ((4880, 1836), (0, 1836), (2515, 1836), 159), 2.40),
        ("mediamill_small", ((2000, 120), (0, 120), (500, 120), 101), 4.35),
    ),
)
def test_the_real_sets(name, shapes, labels_a_row):
    if not SHARED:
        pytest.skip("TF_SPECTRAL_DATA is unset: it names the folder with data")
    if not (pathlib.Path(SHARED) / "multilabel" / f"{name}.npz").exists():
        pytest.skip(f"{SHARED} does not hold multilabel/{name}.npz")
    parts = multilabel(name)
    assert tuple(x.shape for x, _ in parts) == shapes[:3]
    y = np.concatenate([y for _, y in parts])
    assert y.shape[1] == shapes[3]
    assert abs(y.sum() / len(y) - labels_a_row) < 0.005
    if name == "bibtex":
        assert all((part[1].sum(axis=0) > 0).all() for part in parts[::2])
