"""Training with the gradient of all data, stopped and gone on with."""

import keras
import numpy as np
import pytest

from tf_spectral import plotting
from tf_spectral.bounds import LayerwiseSmoothness
from tf_spectral.callbacks.backup import saved_states
from tf_spectral.losses import SumOfSquares
from tf_spectral.optimizers import DSGD

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow only", allow_module_level=True)

from keras_examples import dsgd_images
from support import full_batch

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(12, 3)).astype("float32")
Y = np.eye(2, dtype="float32")[RNG.integers(2, size=12)]


@pytest.fixture(scope="module")
def trainer():
    layers = [keras.layers.Dense(n, "sigmoid") for n in (4, 2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    smoothness = LayerwiseSmoothness.from_model(
        model, input_norm=2.0, residual=1.0, loss=SumOfSquares()
    )
    return full_batch.FullBatchTrainer(
        model, DSGD(smoothness=smoothness), SumOfSquares(dtype="float64"), 5
    )


def run(trainer, folder, updates):
    folder.mkdir(exist_ok=True)
    trainer.restart(1.0)
    run = full_batch.FullBatchRun(trainer, folder, True, 2, save_every=3)
    return run.run([(X, Y)], (X, Y), updates)


def assert_same(log, other):
    log, other = plotting.read_log(log), plotting.read_log(other)
    for name in set(log) - {"seconds"}:
        np.testing.assert_array_equal(log[name], other[name])


def test_a_stopped_run_goes_on_with_its_bound(trainer, tmp_path, monkeypatch):
    whole = run(trainer, tmp_path / "whole", 8)
    log = plotting.read_log(whole)
    assert len(log["loss"]) == 9
    bounds = 2 * log["loss"][0] / np.arange(1, 9)
    np.testing.assert_allclose(log["bound"][:8], bounds, rtol=1e-12)
    folder = tmp_path / "parts"
    run(trainer, folder, 3)
    text = (folder / "log.csv").read_text()
    with monkeypatch.context() as patch:
        # Two kills while it goes on: the log has all that the backup knows of.
        for _ in range(2):

            def kill(*args):
                raise KeyboardInterrupt

            patch.setattr(full_batch.FullBatchRun, "_update", kill)
            with pytest.raises(KeyboardInterrupt):
                run(trainer, folder, 8)
            assert len(plotting.read_log(folder / "log.csv")["update"]) >= 3
    (folder / "log.csv").write_text(text + "5,0.25")
    assert_same(run(trainer, folder, 8), whole)
    # Killed before the first state.
    for number in saved_states(folder / "backup"):
        (folder / "backup" / f"epoch-{number:06}.npz").unlink()
    with pytest.raises(SystemExit, match="backup is gone"):
        run(trainer, folder, 8)
    assert_same(folder / "log.csv", whole)


def test_a_log_that_lacks_rows_makes_no_bound(trainer, tmp_path):
    log = run(trainer, tmp_path, 4)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + "".join(lines[3:]))
    with pytest.raises(SystemExit, match="a row of each of 4 updates"):
        run(trainer, tmp_path, 8)
    log.write_text("".join(lines[:3]))
    with pytest.raises(ValueError, match="a row that begins with 4"):
        run(trainer, tmp_path, 8)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "stochastic"])
def test_on_digits(mode, tmp_path, monkeypatch):
    arguments = (
        f"dsgd_images.py --mode {mode} --norms 1 --updates 4 --epochs 2 "
        "--grid-updates 1 --grid-epochs 1 --units 5 --limit 60 "
        f"--out {tmp_path}"
    )
    monkeypatch.setattr("sys.argv", arguments.split())
    dsgd_images.main()
    logs = {path: path.read_text() for path in tmp_path.rglob("log.csv")}
    assert len(logs) == 3
    dsgd_images.main()
    assert all(path.read_text() == text for path, text in logs.items())
    monkeypatch.setattr("sys.argv", [*arguments.split(), "--seed", "1"])
    with pytest.raises(SystemExit, match="other settings"):
        dsgd_images.main()
