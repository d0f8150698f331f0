"""Logs: read, and refused."""

import keras
import numpy as np
import pytest

from tests.plotting.figures import LOG
from tests.plotting.figures import legend
from tests.plotting.figures import lines
from tf_spectral import plotting
from tf_spectral.callbacks import SpectrumMonitor


def test_read_log_of_keras(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    path = tmp_path / "run.csv"
    history = model.fit(
        np.ones((4, 2)),
        np.ones((4, 1)),
        epochs=3,
        verbose=0,
        callbacks=[keras.callbacks.CSVLogger(str(path))],
    )
    log = plotting.read_log(path)
    assert log["epoch"].tolist() == [0, 1, 2]
    assert log["loss"].tolist() == history.history["loss"]
    # Keras writes NA where there is no validation: nothing to draw.
    assert np.isnan(log["val_loss"]).all()
    assert legend(plotting.learning_curves(path)) == ["Training"]


def test_read_log_takes_cells_without_a_number_for_missing(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("epoch,loss,gap\n0,1.5,\n1,NA,[1]\n2,1e-3,7\n3,0.")
    log = plotting.read_log(str(path))
    np.testing.assert_array_equal(log["epoch"], [0, 1, 2, 3])
    np.testing.assert_array_equal(log["loss"], [1.5, np.nan, 1e-3, 0])
    np.testing.assert_array_equal(log["gap"], [np.nan, np.nan, 7, np.nan])
    assert all(x.dtype == np.float64 for x in log.values())


def test_read_log_without_a_header(tmp_path):
    path = tmp_path / "empty.csv"
    path.touch()
    with pytest.raises(ValueError, match=r"`path`.*header.*empty.csv"):
        plotting.read_log(path)


def test_columns_of_different_lengths_are_refused():
    log = {"loss": [1.0, 0.5], "val_loss": [0.7]}
    with pytest.raises(ValueError, match=r"one shape.*\(2,\).*\(1,\)"):
        plotting.learning_curves(log)


def test_what_fit_returns_is_a_log():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.ones((4, 2)), np.ones((4, 1))
    history = model.fit(
        *data, validation_data=data, epochs=4, initial_epoch=2, verbose=0
    )
    figure = plotting.learning_curves(history)
    assert legend(figure) == ["Training", "Validation"]
    loss = list(zip([3, 4], history.history["loss"]))
    assert lines(figure)["Training"] == loss
    figure = plotting.learning_curves({"A": history, "B": LOG})
    assert lines(figure)["A, training"] == loss
    assert lines(plotting.update_curves({"A": history}))["A"] == loss


def test_a_monitor_is_a_log():
    monitor = SpectrumMonitor()
    monitor.history = {
        "epoch": [-1, 0],
        "rnn/sigma_min": [1, 0.9],
        "rnn/sigma_max": [1, 1.1],
    }
    drawn = lines(plotting.singular_values(monitor))
    assert drawn == lines(plotting.singular_values(monitor.history))
    assert {x for points in drawn.values() for x, _ in points} == {0, 1}


def test_updates_are_not_called_epochs():
    log = {"update": [100, 200], "loss": [2.0, 1.0]}
    figure = plotting.learning_curves(log)
    assert figure.axes[0].get_xlabel() == "Update"
    assert lines(figure)["Training"] == [(100, 2.0), (200, 1.0)]
    for draw in (plotting.learning_curves, plotting.update_curves):
        with pytest.raises(ValueError, match=r"`logs` must count the same"):
            draw({"A": log, "B": LOG})
