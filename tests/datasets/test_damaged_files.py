"""Files that are damaged, not what they say, or somewhere else."""

import io
import os
import resource
import struct
import zipfile

import numpy as np
import pytest

from tf_spectral import datasets

X = np.arange(12.0).reshape(6, 2)
Y = np.eye(3)[[0, 1, 2, 0, 1, 2]]


def member(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(shape, descr="<f8", version=b"\x01\x00"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}"
    text = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


def write_npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        members = {"x": member(X), "y": member(Y), **members}
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


MEMBERS = {
    "text": (b"no array", "x to be an array"),
    "nothing": (b"", "x to be an array"),
    "objects": (member(np.array([[{}]])), "dtype object"),
    "structured": (member(np.zeros((6, 2), "i4,f8")), "dtype"),
    "complex": (member(X * 1j), "dtype complex128"),
    "dates": (member(X.astype("datetime64[D]")), "dtype datetime64"),
    "durations": (member(X.astype("timedelta64[s]")), "dtype timedelta64"),
    "strings": (member(X.astype(str)), "dtype <U"),
    "bytes": (member(X.astype(bytes)), "dtype |S"),
    "too many rows": (header((10**12, 2)), "that its header declares"),
    "far too many": (header((10**30, 2)), "that its header declares"),
    "half": (member(X)[:-8], "that its header declares"),
    "more": (member(X) + b"more", "that its header declares"),
    "negative": (header((-6, -2)) + bytes(96), "x"),
    "code": (header("__import__('os').abort()"), "x to be an array"),
    "long header": (header("(" * 30_000), "x to be an array"),
    "version": (header((6, 2), version=b"\x09\x00"), "plain numbers"),
    "infinite": (member(X + 1e300), "finite numbers in x"),
    "vector": (member(X[:, 0]), "shapes .n, features."),
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_members_that_are_no_arrays_of_numbers(kind, tmp_path):
    content, what = MEMBERS[kind]
    write_npz(tmp_path / "mine.npz", x=content)
    with pytest.raises(ValueError, match=f"mine.npz: expected .*{what}"):
        datasets.multilabel("mine", tmp_path)


def test_archives_that_are_damaged(tmp_path):
    path = tmp_path / "mine.npz"
    write_npz(path)
    for split in (0, 0.5):
        assert len(datasets.multilabel("mine", tmp_path, split)[0][0])
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        damaged = bytearray(content)
        if trial % 3:
            for place in rng.integers(len(content), size=1 + trial % 4):
                damaged[place] = rng.integers(256)
        else:
            del damaged[rng.integers(len(content)) :]
        path.write_bytes(damaged)
        try:
            datasets.multilabel("mine", tmp_path)
        except ValueError as error:
            refused += "mine.npz" in str(error)
        else:
            refused += damaged == content or trial % 3 > 0
    assert refused == 300


def test_memory_is_that_of_the_file(tmp_path):
    """A bomb of a few kilobytes, and headers that ask for terabytes."""
    zeros = header((2**36, 2), "|u1") + bytes(10**6)
    write_npz(tmp_path / "zeros.npz", x=zeros)
    (tmp_path / "wide_train.txt").write_text("1 1000000000000 5\n0 1:1\n")
    (tmp_path / "wide_test.txt").write_text("1 1000000000000 5\n0 1:1\n")
    (tmp_path / "tall_train.txt").write_text("1000000000000 2 5\n0 1:1\n")
    (tmp_path / "tall_test.txt").write_text("1 2 5\n0 1:1\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, what in {
        "zeros": "header declares",
        "wide": "line 1: expected arrays that fit",
        "tall": "expected 1000000000000 examples",
    }.items():
        with pytest.raises(ValueError, match=f"{name}.*{what}"):
            datasets.multilabel(name, tmp_path)
    for make in (
        lambda: datasets.adding(10**12, 10),
        lambda: datasets.adding(10, 10**12),
        lambda: datasets.copying(10**6, 10**6),
        lambda: datasets.copying(10, 10, alphabet=10**12),
    ):
        with pytest.raises(ValueError, match="`size`.*arrays that fit"):
            make()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 2**16  # kilobytes


LOADERS = {
    "ucr": datasets.ucr,
    "multilabel": datasets.multilabel,
    "images": datasets.images,
    "pixel_images": datasets.pixel_images,
}


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    folder, outside = tmp_path / "data", tmp_path / "up"
    for place in (folder, outside):
        place.mkdir()
    for part in ("TRAIN", "TEST"):
        (outside / f"up_{part}.tsv").write_text("1\t2\t3\n")
    write_npz(tmp_path / "up.npz")
    names = ["../up", str(outside), "..", ".", "", "a/b", "a\\b", "a\0", None]
    for name in [*names, 5, b"up", ["up"], np.array(["a", "b"])]:
        for load in LOADERS.values():
            with pytest.raises(ValueError, match="`name`"):
                load(name)
        for load in (datasets.ucr, datasets.multilabel):
            with pytest.raises(ValueError, match="`name`"):
                load(name, folder)


def test_folders_and_names_that_no_file_can_have(tmp_path, monkeypatch):
    long = "a" * 5000
    for load in (datasets.ucr, datasets.multilabel):
        with pytest.raises(ValueError, match="must lead to the data"):
            load(long, tmp_path)
    folders = {
        long: "must lead to the data",
        str(tmp_path / "absent"): "must lead to the data",
        "~nobody-of-this-name/data": "known user",
        "a\0": "must be a path",
        "": "must be a path",
        5: "must be a path",
        b"bytes": "must be a path",
    }
    for folder, what in folders.items():
        for load in (
            lambda folder: datasets.ucr("CBF", folder),
            lambda folder: datasets.multilabel("bibtex", folder),
            datasets.ucr_names,
            datasets.penn_treebank,
        ):
            with pytest.raises(ValueError, match=f"`folder`.*{what}"):
                load(folder)
        with pytest.raises(ValueError, match=f"`path`.*{what}"):
            datasets.characters(folder)
        for load in (datasets.images, datasets.pixel_images):
            with pytest.raises(ValueError, match="`data_dir`"):
                load("mnist", data_dir=folder)
    monkeypatch.setenv("TF_SPECTRAL_DATA", long)
    for load in (datasets.ucr_names, datasets.penn_treebank):
        with pytest.raises(ValueError, match="must lead to the data"):
            load()
    # Its files would have names that are too long.
    (tmp_path / ("b" * 250)).mkdir()
    assert datasets.ucr_names(tmp_path) == []


def test_folders_where_files_are_expected(tmp_path):
    for name in (
        "CBF/CBF_TRAIN.tsv",
        "CBF/CBF_TEST.tsv",
        "mine.npz",
        "mine_train.txt",
        "mine_test.txt",
        "ptb.train.txt",
        "ptb.valid.txt",
        "ptb.test.txt",
        "input.txt",
    ):
        (tmp_path / name).mkdir(parents=True)
    for load in (
        lambda: datasets.ucr("CBF", tmp_path),
        lambda: datasets.multilabel("mine", tmp_path),
        lambda: datasets.penn_treebank(tmp_path),
        lambda: datasets.characters(tmp_path),
    ):
        with pytest.raises(ValueError, match="must lead to the data"):
            load()
    assert datasets.ucr_names(tmp_path) == []
    # What is there in another format is found all the same.
    for part in ("train", "test"):
        os.rmdir(tmp_path / f"mine_{part}.txt")
        (tmp_path / f"mine_{part}.txt").write_text("1 2 3\n0 1:1\n")
    assert datasets.multilabel("mine", tmp_path)[0][0].shape == (1, 2)


def test_a_damaged_folder_of_tensorflow_datasets(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    for content in ("", "{", "[]", "{}"):
        (folder / "dataset_info.json").write_text(content)
        with pytest.raises(ValueError, match=f"{tmp_path}: expected 'mnist'"):
            datasets.images("mnist", data_dir=tmp_path)


def test_numbers_that_only_python_reads(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "A_TRAIN.tsv").write_text("1\t1_000\t3\n")
    (tmp_path / "A" / "A_TEST.tsv").write_text("1\t1\t3\n")
    with pytest.raises(ValueError, match="A_TRAIN.tsv, line 1.*'1_000'"):
        datasets.ucr("A", tmp_path)
    (tmp_path / "b_test.txt").write_text("1 2 3\n0 1:1\n")
    for text, line in (
        ("1 2_0 3\n0 1:1\n", 1),
        ("1 20 30\n1_0 1:1\n", 2),
        ("1 20 3\n1 1_0:1\n", 2),
        ("1 20 3\n1 1:1_0\n", 2),
        ("1 20 3\n1 1:1j\n", 2),
        (f"1 20 3\n1 {'1' * 5000}:1\n", 2),
    ):
        (tmp_path / "b_train.txt").write_text(text)
        with pytest.raises(ValueError, match=f"b_train.txt, line {line}:"):
            datasets.multilabel("b", tmp_path)
    (tmp_path / "c_data.txt").write_text("1 2 3\n0 1:1\n")
    for part in ("tr", "tst"):
        (tmp_path / f"c_{part}Split.txt").write_text("1" * 5000)
    with pytest.raises(ValueError, match="c_trSplit.txt, line 1:"):
        datasets.multilabel("c", tmp_path)


def test_flags_are_booleans():
    for value in ("no", 1, 0, None, [], np.ones(2)):
        for name, call in {
            "permute": lambda v: datasets.pixel_images(permute=v),
            "flatten": lambda v: datasets.images(flatten=v),
            "one_hot": lambda v: datasets.images(one_hot=v),
            "swap": lambda v: datasets.ucr("CBF", swap=v),
        }.items():
            with pytest.raises(ValueError, match=f"`{name}` must be a boolean"):
                call(value)
        with pytest.raises(ValueError, match="`one_hot` must be a boolean"):
            datasets.copying(2, 3, one_hot=value)
    tokens = (
        [[1, 2], [3]],
        ["a", "b"],
        np.arange(9).astype("timedelta64[s]"),
        np.arange(9).astype("datetime64[s]"),
        np.ones(9, bool),
        np.ones(9),
        None,
    )
    for text in tokens:
        with pytest.raises(ValueError, match="`tokens`"):
            datasets.stateful_batches(text, 2, 2)
