"""Images as vectors or as pictures: splits, scales, labels, sources."""

import os
import pathlib
import sys

import numpy as np
import pytest

from tf_spectral.datasets import images

SHARED = os.environ.get("TF_SPECTRAL_DATA")
REAL = {
    "mnist": ((28, 28, 1), 60_000, 10_000),
    "fashion_mnist": ((28, 28, 1), 60_000, 10_000),
    "cifar10": ((32, 32, 3), 50_000, 10_000),
    "svhn_cropped": ((32, 32, 3), 73_257, 26_032),
}


@pytest.fixture(scope="module")
def digits():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    bunch = load_digits()
    return bunch.data.astype("float32") / 16, bunch.target


def rows(x):
    return sorted(row.tobytes() for row in x.reshape(len(x), -1))


def test_digits_are_split_without_loss_or_overlap(digits):
    parts = images("digits")
    assert [x.shape for x, _ in parts] == [(1198, 64), (240, 64), (359, 64)]
    for x, y in parts:
        assert x.dtype == np.float32 and y.dtype == np.int32
        assert y.shape == x.shape[:1]
        assert x.min() == 0.0 and x.max() == 1.0
    assert rows(np.concatenate([x for x, _ in parts])) == rows(digits[0])


def test_labels_stay_with_their_images(digits):
    label_of = {x.tobytes(): y for x, y in zip(*digits, strict=True)}
    for x, y in images("digits"):
        for image, label in zip(x, y, strict=True):
            assert label_of[image.tobytes()] == label


def test_pictures_are_the_vectors_in_rows_and_columns():
    for (a, _), (b, _) in zip(
        images("digits"), images("digits", flatten=False), strict=True
    ):
        assert b.shape == (len(a), 8, 8, 1)
        np.testing.assert_array_equal(a, b.reshape(len(a), 64))


def test_one_hot_labels():
    for (_, a), (_, b) in zip(
        images("digits"), images("digits", one_hot=True), strict=True
    ):
        assert b.shape == (len(a), 10) and b.dtype == np.float32
        np.testing.assert_array_equal(b.argmax(axis=1), a)
        np.testing.assert_array_equal(b.sum(axis=1), 1.0)
        assert set(np.unique(b)) == {0.0, 1.0}


def test_seed_decides_the_split():
    first, again, other = (images("digits", seed=s) for s in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
        assert (a[0] != c[0]).any()


def test_splits_are_stratified(digits):
    share = np.bincount(digits[1]) / len(digits[1])
    for _, y in images("digits"):
        assert np.abs(np.bincount(y) - share * len(y)).max() < 2


def test_no_validation():
    train, val, test = images("digits", validation_split=0, flatten=False)
    assert train[0].shape == (1438, 8, 8, 1)
    assert val[0].shape == (0, 8, 8, 1) and val[1].shape == (0,)
    assert len(test[0]) == 359
    _, val, _ = images("digits", validation_split=0, one_hot=True)
    assert val[0].shape == (0, 64) and val[1].shape == (0, 10)


@pytest.mark.parametrize(
    "arguments",
    (
        {"name": "imagenet"},
        {"seed": -1},
        {"validation_split": 1.0},
        {"validation_split": "0.1"},
    ),
)
def test_wrong_arguments(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        images(**arguments)


@pytest.mark.parametrize("name", REAL)
def test_data_dir_without_the_set(name, tmp_path):
    with pytest.raises(ValueError, match=rf"`data_dir`.*'{name}'.*Received"):
        images(name, data_dir=tmp_path)


class FakeTFDS:
    """Stands in for TensorFlow Datasets: images of the shape it is told."""

    def __init__(self, shape):
        self.shape = shape

    def load(self, name, **kwargs):
        size = 20 * np.prod(self.shape)
        x = np.arange(size).reshape(20, *self.shape).astype("uint8")
        return [(x, np.arange(20) % 2), (x[:5], np.arange(5) % 2)]

    def as_numpy(self, arrays):
        return arrays


@pytest.mark.parametrize("name", REAL)
def test_grey_and_coloured_sets(name, monkeypatch):
    shape = REAL[name][0]
    fake = FakeTFDS(shape)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    train, val, test = images(name, flatten=False, validation_split=0.2)
    assert [x.shape for x, _ in (train, val, test)] == [
        (16, *shape),
        (4, *shape),
        (5, *shape),
    ]
    expected = fake.load(name)[1][0] / np.float32(255)
    np.testing.assert_array_equal(test[0], expected)
    flat = images(name, validation_split=0.2)[2][0]
    np.testing.assert_array_equal(flat, expected.reshape(5, -1))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_sets(name):
    if not SHARED:
        pytest.skip("TF_SPECTRAL_DATA is unset: it names the folder with data")
    folder = pathlib.Path(SHARED) / "tensorflow_datasets"
    if not (folder / name).exists():
        pytest.skip(f"{folder} does not hold {name}")
    shape, count, tests = REAL[name]
    train, val, test = images(name, data_dir=folder)
    apart = round(count / 6)
    for (x, y), size in zip(
        (train, val, test), (count - apart, apart, tests), strict=True
    ):
        assert x.shape == (size, np.prod(shape)) and x.dtype == np.float32
        assert y.shape == (size,) and y.dtype == np.int32
        assert x.min() == 0.0 and x.max() == 1.0
        assert set(np.unique(y)) == set(range(10))
