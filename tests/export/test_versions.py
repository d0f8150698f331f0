"""Folders of versions: what is written is whole, what is there stays."""

import os
import tempfile
import threading
import time
from concurrent import futures

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers import BACKEND
from tf_spectral.export import export_saved_model
from tf_spectral.export import versions

if BACKEND == "tensorflow":
    import tensorflow as tf
else:
    tf = None

on_tensorflow = pytest.mark.skipif(tf is None, reason="SavedModels are TF's")


@on_tensorflow
def test_versions(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    path = tmp_path / "deep" / "model"
    assert export_saved_model(model, path) == str(path / "1")
    assert export_saved_model(model, path, version=7) == str(path / "7")
    assert export_saved_model(model, str(path)) == str(path / "8")
    with pytest.raises(ValueError, match=r"exists already.*\[1, 7, 8\]"):
        export_saved_model(model, path, version=7)
    for version in (0, -1, 1.0, "2", True):
        with pytest.raises(ValueError, match="must be a positive integer"):
            export_saved_model(model, path, version=version)
    assert sorted(p.name for p in path.iterdir()) == ["1", "7", "8"]
    assert [p.name for p in path.parent.iterdir()] == ["model"]


@on_tensorflow
def test_paths_that_are_no_model_folder(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(ValueError, match="must be a folder"):
        export_saved_model(model, file)
    with pytest.raises(ValueError, match="folder of one model"):
        export_saved_model(model, tmp_path)
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "3").write_text("a file")
    with pytest.raises(ValueError, match="folder of one model"):
        export_saved_model(model, tmp_path / "numbers")
    assert file.read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "numbers"]


@on_tensorflow
def test_versions_that_no_server_reads(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    path = tmp_path / "m"
    for version in (2**63, 10**400, 0, -1, 1.0, "2", True, float("nan")):
        with pytest.raises(ValueError, match="`version` must be a positive"):
            export_saved_model(model, path, version=version)
    last = 2**63 - 1
    assert export_saved_model(model, path, np.int64(last)) == str(
        path / f"{last}"
    )
    with pytest.raises(ValueError, match="`version` must be given"):
        export_saved_model(model, path)
    (path / f"{2**63}").mkdir()
    with pytest.raises(ValueError, match="below 2"):
        export_saved_model(model, path, 1)


@on_tensorflow
def test_places_that_are_no_local_folder(tmp_path, monkeypatch):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(os.listdir(tmp_path))
    for path, message in {
        "gs://bucket/model": "local path",
        "s3://bucket/model": "local path",
        "file": "a file",
        "file/model": "a file",
        "link": "leads nowhere",
        "link/model": "leads nowhere",
        "loop": "leads nowhere",
        "m" * 300: "must be a folder.*too long",
        "null\0": "must be a path",
        "": "must be a path",
        None: "must be a path",
        b"bytes": "must be a path",
    }.items():
        with pytest.raises(ValueError, match=f"`path`.*{message}"):
            export_saved_model(model, path)
    for flag in ("no", 1, None, np.ones(2)):
        with pytest.raises(ValueError, match="`materialize` must be a boolean"):
            export_saved_model(model, "m", materialize=flag)
    for flag in ("no", 0, []):
        with pytest.raises(ValueError, match="`streaming` must be a boolean"):
            export_saved_model(model, "m", streaming=flag)
    assert sorted(os.listdir(tmp_path)) == before


@on_tensorflow
def test_the_current_folder_and_links(tmp_path, monkeypatch):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    assert export_saved_model(model, ".") == "1"
    assert export_saved_model(model, "../link") == "../link/2"
    assert sorted(os.listdir(folder)) == ["1", "2"]
    assert sorted(os.listdir(tmp_path)) == ["link", "model"]
    assert tf.saved_model.contains_saved_model("1")
    # As if TensorFlow had written it itself.
    tf.saved_model.save(tf.Module(), "3")
    assert os.stat("1").st_mode == os.stat("3").st_mode


@on_tensorflow
@pytest.mark.skipif(
    not os.path.isdir("/dev/shm")
    or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev,
    reason="needs two file systems",
)
def test_a_link_to_another_file_system(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / "model").symlink_to(other)
        for version in "12":
            folder = export_saved_model(model, tmp_path / "model")
            assert folder == str(tmp_path / "model" / version)
            assert tf.saved_model.contains_saved_model(folder)
        assert sorted(os.listdir(other)) == ["1", "2"]


def write(folder):
    os.mkdir(folder)
    with open(os.path.join(folder, "saved_model.pb"), "w") as file:
        file.write("whole")


def test_what_killed_exports_left_neither_blocks_nor_stays(tmp_path):
    path = tmp_path / "m"
    killed = [path / ".export-0", path / ".export-1"]
    for folder in (*killed, path / ".m-old", path / "lost+found"):
        (folder / "version").mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    # An old folder with a file of now is an export that still goes on.
    (killed[1] / "version" / "variables").touch()
    for folder in killed:
        for place in (folder / "version", folder):
            os.utime(place, (two_days_ago, two_days_ago))
    assert versions.model_folder(path) == path
    made = versions.write_version(path, None, write)
    assert made == path / "1"
    expected = [".export-1", ".m-old", "1", "lost+found"]
    assert sorted(os.listdir(path)) == expected


def test_who_loses_a_race_takes_the_next_number(tmp_path):
    path = tmp_path / "deep" / "m"

    def write_late(folder):
        # Meanwhile others export.
        for _ in range(2):
            versions.write_version(path, None, write)
        write(folder)

    assert versions.write_version(path, None, write_late) == path / "3"

    def write_too_late(folder):
        versions.write_version(path, 7, write)
        write(folder)

    with pytest.raises(ValueError, match="`version`.*made meanwhile"):
        versions.write_version(path, 7, write_too_late)
    (path / "8").write_text("a file that appeared")
    assert versions.write_version(path, None, write) == path / "9"
    assert sorted(os.listdir(path)) == ["1", "2", "3", "7", "8", "9"]


def test_concurrent_exports_all_arrive(tmp_path):
    barrier = threading.Barrier(12)

    def export(_):
        def write_together(folder):
            write(folder)
            barrier.wait()

        return versions.write_version(tmp_path / "m", None, write_together)

    with futures.ThreadPoolExecutor(12) as pool:
        made = list(pool.map(export, range(12)))
    numbers = sorted(int(path.name) for path in made)
    assert numbers == list(range(1, 13))
    names = sorted(map(int, os.listdir(tmp_path / "m")))
    assert names == numbers


def test_a_failure_leaves_what_was_there(tmp_path):
    def fail(folder):
        write(folder)
        raise OSError("disk full")

    (tmp_path / "there").mkdir()
    for path in (tmp_path / "there", tmp_path / "not" / "there"):
        with pytest.raises(OSError, match="disk full"):
            versions.write_version(path, None, fail)
    assert os.listdir(tmp_path) == ["there"]
    assert not os.listdir(tmp_path / "there")
