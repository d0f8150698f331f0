"""Processes killed at random moments: what is left can be gone on with.

`TF_SPECTRAL_KILLS=20 pytest -m slow tests/integration/test_kills.py` kills
each training twenty times.
"""

import multiprocessing
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from tests.helpers import BACKEND
from tf_spectral import plotting

if BACKEND != "tensorflow" or not os.path.isdir("/proc/self/task"):
    pytest.skip("forks TensorFlow on Linux", allow_module_level=True)

from tests.integration import killed

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("TF_SPECTRAL_KILLS", 2))
EPOCHS = 4 * KILLS
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([killed.__name__])
    return context


def run(processes, function, *arguments):
    process = processes.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def kill(processes, rng, began, longest, function, *arguments):
    """Starts a process and kills it; returns whether it was alive till then.

    One in five is killed before it has begun to train.
    """
    began.unlink(missing_ok=True)
    process = processes.Process(target=function, args=arguments)
    process.start()
    start = time.perf_counter()
    if rng.random() < 0.2:
        process.join(rng.uniform(0, 2))
    else:
        while process.is_alive() and not began.exists():
            time.sleep(0.005)
            assert time.perf_counter() - start < 120
        process.join(rng.uniform(0, longest))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def result(folder):
    with np.load(folder / "result.npz") as file:
        return [file[name] for name in file.files]


@pytest.mark.parametrize("case", killed.CASES)
def test_a_killed_training_ends_as_one_that_was_not(case, processes, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    run(processes, killed.train, case, whole, EPOCHS)
    times = [p.stat().st_mtime for p in (whole / "backup").iterdir()]
    epoch = max(times) - min(times)
    rng, kills, tries = np.random.default_rng(len(case)), 0, 0
    while kills < KILLS:
        tries += 1
        parts = tmp_path / f"parts_{tries}"
        parts.mkdir()
        arguments = (killed.train, case, parts, EPOCHS)
        while kills < KILLS:
            if not kill(processes, rng, parts / "began", 6 * epoch, *arguments):
                break
            kills += 1
        run(processes, *arguments)
        for a, b in zip(result(parts), result(whole), strict=True):
            np.testing.assert_array_equal(a, b)
        names = sorted(path.name for path in (parts / "backup").iterdir())
        assert [n for n in names if not n.startswith(".")] == [
            f"epoch-{n:06}.npz" for n in (EPOCHS - 1, EPOCHS)
        ]


EXAMPLES = {
    "adding": "--length 6 --units 4 --reflectors 2 --batch 8 "
    f"--iterations {100 * EPOCHS} --cell spectral",
    "dsgd_images": "--methods random --norms 2 --units 4 --limit 60 "
    f"--updates {25 * EPOCHS} --save-every 5 --grid-updates 2",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_killed_example_keeps_its_log(name, processes, tmp_path):
    script = str(ROOT / "keras_examples" / f"{name}.py")

    def arguments(folder):
        return script, [*EXAMPLES[name].split(), "--out", str(folder)]

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start = time.perf_counter()
    run(processes, killed.example, *arguments(whole))
    seconds = time.perf_counter() - start
    rng, kills = np.random.default_rng(0), 0
    for _ in range(KILLS):
        # A start, and what it still has to do.
        alive = seconds * rng.uniform(0, min(0.8, 0.5 + 2 / KILLS))
        process = processes.Process(
            target=killed.example, args=arguments(parts)
        )
        process.start()
        process.join(alive)
        process.kill()
        process.join()
        kills += process.exitcode != 0
    assert kills
    run(processes, killed.example, *arguments(parts))
    log = next(whole.rglob("log.csv")).relative_to(whole)
    columns = plotting.read_log(parts / log)
    expected = plotting.read_log(whole / log)
    assert list(columns) == list(expected)
    for column in set(columns) - {"seconds"}:
        np.testing.assert_array_equal(columns[column], expected[column])
    names, others = (
        sorted(str(p.relative_to(folder)) for p in folder.rglob("[!.]*"))
        for folder in (parts, whole)
    )
    assert names == others


def test_killed_exports_leave_whole_versions_only(processes, tmp_path):
    import tensorflow as tf

    rng, seconds = np.random.default_rng(0), 1.0
    for _ in range(KILLS):
        began = tmp_path / "began"
        kill(processes, rng, began, seconds, killed.export, tmp_path)
    folder = tmp_path / "model"
    versions = [path for path in folder.iterdir() if path.name.isdigit()]
    assert versions
    for path in versions:
        served = tf.saved_model.load(str(path)).signatures["serving_default"]
        assert served(inputs=tf.constant(killed.X))["outputs"].shape == (8, 1)
    numbers = sorted(int(path.name) for path in versions)
    assert numbers == list(range(1, len(numbers) + 1))
