"""Images, whole and as sequences of pixels."""

import os
import pathlib
import sys

import numpy as np
import pytest

from tf_spectral.datasets import images
from tf_spectral.datasets import pixel_images
from tf_spectral.datasets import vision

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


def test_digits_are_split_without_loss_or_overlap_of_images(digits):
    parts = images("digits")
    assert [x.shape for x, _ in parts] == [(1198, 64), (240, 64), (359, 64)]
    for x, y in parts:
        assert x.dtype == np.float32 and y.dtype == np.int32
        assert y.shape == x.shape[:1]
        assert x.min() == 0.0 and x.max() == 1.0
    assert rows(np.concatenate([x for x, _ in parts])) == rows(digits[0])


def test_labels_stay_with_whole_images(digits):
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


def test_splits_are_stratified_of_images(digits):
    share = np.bincount(digits[1]) / len(digits[1])
    for _, y in images("digits"):
        assert np.abs(np.bincount(y) - share * len(y)).max() < 2


def test_no_validation_of_images():
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
def test_wrong_arguments_of_images(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        images(**arguments)


@pytest.mark.parametrize("name", REAL)
def test_data_dir_without_the_set_of_images(name, tmp_path):
    with pytest.raises(ValueError, match=rf"`data_dir`.*'{name}'.*Received"):
        images(name, data_dir=tmp_path)


class OfImages:
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
    fake = OfImages(shape)
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
def test_the_real_sets_of_images(name):
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


needs_shared_data = pytest.mark.skipif(
    not SHARED,
    reason="TF_SPECTRAL_DATA is unset: it names the folder with MNIST",
)


def test_digits_are_split_without_loss_or_overlap_of_pixel_images(digits):
    parts = pixel_images("digits")
    assert [x.shape for x, _ in parts] == [
        (1294, 64, 1),
        (144, 64, 1),
        (359, 64, 1),
    ]
    for x, y in parts:
        assert x.dtype == np.float32 and y.dtype == np.int32
        assert y.shape == x.shape[:1]
        assert x.min() == 0.0 and x.max() == 1.0
    assert rows(np.concatenate([x for x, _ in parts])) == rows(digits[0])


def test_labels_stay_with_their_pixels(digits):
    label_of = {
        x.tobytes(): y for x, y in zip(digits[0], digits[1], strict=True)
    }
    for x, y in pixel_images("digits"):
        for image, label in zip(x, y, strict=True):
            assert label_of[image.tobytes()] == label


@pytest.mark.parametrize("seed", (0, 1))
@pytest.mark.parametrize("validation_split", (0.1, 0.25))
def test_splits_are_stratified_of_pixel_images(digits, validation_split, seed):
    train, val, test = pixel_images(
        "digits", validation_split=validation_split, seed=seed
    )
    share = np.bincount(digits[1]) / len(digits[1])
    for _, y in (train, val, test):
        assert np.abs(np.bincount(y) - share * len(y)).max() < 2


def test_splits_are_in_random_order():
    for _, y in pixel_images("digits"):
        assert (np.diff(y) < 0).mean() > 0.3


def test_seed_decides_everything():
    first, again, other = (
        pixel_images("digits", permute=True, seed=s) for s in (1, 1, 2)
    )
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
        assert (a[0] != c[0]).any() and (a[1] != c[1]).any()


def test_permutation_is_one_bijection_for_all_parts():
    plain = pixel_images("digits")
    mixed = pixel_images("digits", permute=True)
    old = np.concatenate([x for x, _ in plain])[..., 0].T
    new = np.concatenate([x for x, _ in mixed])[..., 0].T
    for (_, a), (_, b) in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(a, b)
    # A pixel is its values in all images; those that never vary are alike.
    assert (old != new).any()
    assert rows(old) == rows(new)
    where = {pixel.tobytes(): i for i, pixel in enumerate(new)}
    order = np.array([where[pixel.tobytes()] for pixel in old])
    varies = old.std(axis=1) > 0
    assert len(set(order[varies])) == varies.sum()


def test_no_validation_of_pixel_images():
    train, val, test = pixel_images("digits", validation_split=0)
    assert train[0].shape == (1438, 64, 1)
    assert val[0].shape == (0, 64, 1) and val[1].shape == (0,)
    assert test[0].shape == (359, 64, 1)


def test_pixels_per_step_cuts_the_same_sequence():
    fine = pixel_images("digits", permute=True)
    coarse = pixel_images("digits", permute=True, pixels_per_step=8)
    for (a, _), (b, _) in zip(fine, coarse, strict=True):
        assert b.shape == (len(a), 8, 8)
        np.testing.assert_array_equal(a.ravel(), b.ravel())


@pytest.mark.parametrize(
    "arguments",
    (
        {"name": "cifar10"},
        {"seed": -1},
        {"validation_split": 1.0},
        {"validation_split": -0.1},
        {"validation_split": "0.1"},
        {"pixels_per_step": 0},
        {"pixels_per_step": 7},
    ),
)
def test_wrong_arguments_of_pixel_images(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=f"`{name}`.*{name}={value!r}"):
        pixel_images(**arguments)


def test_data_dir_without_the_set_of_pixel_images(tmp_path):
    with pytest.raises(ValueError, match=r"`data_dir`.*'mnist'.*Received"):
        pixel_images("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    "name, module, package",
    (
        ("digits", "sklearn.datasets", "scikit-learn"),
        ("mnist", "tensorflow_datasets", "tensorflow-datasets"),
    ),
)
def test_missing_package_says_what_to_install(
    monkeypatch, name, module, package
):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"`{package}`.*`pip install {package}`"
    with pytest.raises(ImportError, match=message):
        pixel_images(name)


class OfPixels:
    """Stands in for TensorFlow Datasets and remembers what it was asked."""

    def load(self, name, **kwargs):
        self.asked = kwargs | {"name": name}
        images = np.arange(20 * 784).reshape(20, 28, 28, 1).astype("uint8")
        return [(images, np.arange(20) % 2), (images[:5], np.arange(5) % 2)]

    def as_numpy(self, arrays):
        return arrays


@pytest.fixture
def fake_tfds(monkeypatch):
    monkeypatch.delenv("TF_SPECTRAL_DATA", raising=False)
    fake = OfPixels()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    return fake


def make_set(folder, name):
    (folder / name / "3.0.1").mkdir(parents=True)
    (folder / name / "3.0.1" / "dataset_info.json").touch()
    return folder


def test_where_mnist_is_looked_for(monkeypatch, tmp_path, fake_tfds):
    def asked(**kwargs):
        pixel_images("mnist", **kwargs)
        return fake_tfds.asked["data_dir"], fake_tfds.asked["download"]

    assert asked() == (None, True)
    monkeypatch.setenv("TF_SPECTRAL_DATA", str(tmp_path / "shared"))
    assert asked() == (None, True)
    shared = make_set(tmp_path / "shared" / "tensorflow_datasets", "mnist")
    assert asked() == (str(shared), False)
    own = make_set(tmp_path / "own", "mnist")
    assert asked(data_dir=own) == (str(own), False)
    assert asked(data_dir=str(own)) == (str(own), False)
    with pytest.raises(ValueError, match="fashion_mnist"):
        pixel_images("fashion_mnist", data_dir=own)


def test_mnist_keeps_its_own_test_set(fake_tfds):
    train, val, test = pixel_images("mnist", validation_split=0.2)
    assert [len(y) for _, y in (train, val, test)] == [16, 4, 5]
    assert np.bincount(train[1]).tolist() == [8, 8]
    images = fake_tfds.load("mnist")[1][0]
    expected = images.reshape(5, 784, 1) / np.float32(255)
    np.testing.assert_array_equal(test[0], expected)
    assert test[0].dtype == np.float32


@needs_shared_data
@pytest.mark.slow
@pytest.mark.parametrize("name", vision.TFDS_NAMES)
def test_the_real_sets_of_pixel_images(name):
    folder = pathlib.Path(SHARED) / "tensorflow_datasets"
    train, val, test = pixel_images(name, data_dir=folder)
    assert train[0].shape == (54_000, 784, 1)
    assert val[0].shape == (6_000, 784, 1)
    assert test[0].shape == (10_000, 784, 1)
    labels = np.bincount(np.concatenate([train[1], val[1]]))
    assert labels.sum() == 60_000
    assert np.abs(np.bincount(val[1]) - labels / 10).max() < 1
    if name == "fashion_mnist":
        assert (labels == 6_000).all()
        assert (np.bincount(test[1]) == 1_000).all()
    for x, y in (train, val, test):
        assert x.dtype == np.float32 and y.dtype == np.int32
        assert x.min() == 0.0 and x.max() == 1.0
