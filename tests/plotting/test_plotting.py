"""Figures that show what the logs say."""

import sys

import keras
import matplotlib.colors
import numpy as np
import pytest
from matplotlib import pyplot

from tf_spectral import plotting
from tf_spectral.callbacks import GradientFlowMonitor
from tf_spectral.callbacks import SpectrumMonitor
from tf_spectral.plotting.canvas import colors

EPOCHS = [1, 2, 3, 4]
LOSS = [1.0, 0.5, 0.25, 0.125]
LOG = {
    "loss": LOSS,
    "val_loss": [1.1, 0.6, 0.3, 0.2],
    "accuracy": [0.1, 0.4, 0.6, 0.9],
}
SPECTRUM = {
    "epoch": [0, 1, 2],
    "rnn/kernel/sigma_min": [0.9, 0.95, 0.97],
    "rnn/kernel/sigma_max": [1.0, 1.02, 1.03],
    "dense/kernel/sigma_min": [0.1, 0.2, 0.3],
    "dense/kernel/sigma_max": [2.0, 2.1, 2.2],
    "rnn/kernel/spectral_margin": [0.1, 0.05, 0.03],
}


def lines(figure):
    """The lines of a figure as label -> list of points."""
    axes = figure.axes[0]
    return {
        line.get_label(): [tuple(p) for p in line.get_xydata()]
        for line in axes.lines
    }


def legend(figure):
    """What the legend says. It covers neither curves nor the title."""
    (found,) = figure.legends
    figure.draw_without_rendering()
    (title,) = figure.texts
    box, axes = found.get_window_extent(), figure.axes[0].get_window_extent()
    assert figure.bbox.x1 >= box.x1 > box.x0 > axes.x1 > axes.x0
    assert title.get_window_extent().y0 > max(box.y1, axes.y1)
    return [text.get_text() for text in found.get_texts()]


def is_drawn(figure, path):
    figure.savefig(path)
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size


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


def test_learning_curves_of_one_run(tmp_path):
    figure = plotting.learning_curves(LOG, baseline=0.1)
    drawn = lines(figure)
    assert drawn["Training"] == list(zip(EPOCHS, LOSS, strict=True))
    assert [y for _, y in drawn["Validation"]] == LOG["val_loss"]
    assert {y for _, y in drawn["Baseline, 0.1"]} == {0.1}
    assert legend(figure) == ["Training", "Validation", "Baseline, 0.1"]
    axes = figure.axes[0]
    assert figure.get_suptitle() == "Loss over training"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Epoch", "Loss")
    assert axes.get_yscale() == "linear"
    assert is_drawn(figure, tmp_path / "loss.png")


def test_learning_curves_of_several_runs(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("epoch,loss\n0,3\n2,2\n4,\n6,1\n")
    figure = plotting.learning_curves(
        {"A": LOG, "B": path}, log_scale=True, title="T", ylabel="Loss (nats)"
    )
    assert legend(figure) == ["A", "B", "training", "validation"]
    assert lines(figure)["B, training"] == [(1, 3), (3, 2), (7, 1)]
    train, val, other = figure.axes[0].lines
    handles = figure.legends[0].legend_handles
    colors = [line.get_color() for line in (train, other)]
    assert [handle.get_color() for handle in handles[:2]] == colors
    assert handles[2].get_linestyle() == train.get_linestyle() == "-"
    assert handles[3].get_linestyle() == val.get_linestyle() == "--"
    assert train.get_color() == val.get_color() != other.get_color()
    assert train.get_linestyle() != val.get_linestyle()
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert (figure.get_suptitle(), axes.get_ylabel()) == ("T", "Loss (nats)")
    assert is_drawn(figure, tmp_path / "loss.png")


def test_learning_curves_of_another_metric_without_validation():
    figure = plotting.learning_curves(LOG, metric="accuracy")
    assert list(lines(figure)) == ["Training"]
    assert [y for _, y in lines(figure)["Training"]] == LOG["accuracy"]


def test_a_single_epoch_is_visible():
    (line,) = plotting.learning_curves({"loss": [1.0]}).axes[0].lines
    assert line.get_marker() == "o"


@pytest.mark.parametrize(
    "logs",
    ({}, 3, {"A": LOG, "B": 3}, {"A": {"B": 3}}, {"loss": [[1.0], [2.0]]}),
)
def test_learning_curves_of_no_log(logs):
    with pytest.raises(ValueError, match=r"`(logs|metric)`.*Expected.*Rec"):
        plotting.learning_curves(logs)


def test_learning_curves_of_an_unknown_metric():
    message = r"`metric`.*\['loss'.*Received: 'mse'"
    with pytest.raises(ValueError, match=message):
        plotting.learning_curves({"A": {"loss": [1.0]}}, metric="mse")


def test_columns_of_different_lengths_are_refused():
    log = {"loss": [1.0, 0.5], "val_loss": [0.7]}
    with pytest.raises(ValueError, match=r"one shape.*\(2,\).*\(1,\)"):
        plotting.learning_curves(log)


def test_singular_values_show_the_range(tmp_path):
    figure = plotting.singular_values(SPECTRUM)
    assert legend(figure) == ["rnn/kernel", "dense/kernel", "Orthogonal, 1"]
    bands = figure.axes[0].collections
    assert len(bands) == 2
    for weight, band in zip(("rnn", "dense"), bands, strict=True):
        low = SPECTRUM[f"{weight}/kernel/sigma_min"]
        high = SPECTRUM[f"{weight}/kernel/sigma_max"]
        corners = {tuple(p) for p in band.get_paths()[0].vertices}
        expected = zip((1, 2, 3) * 2, low + high, strict=True)
        assert corners == set(expected)
    assert is_drawn(figure, tmp_path / "sigma.png")


def test_singular_values_of_some_weights_from_a_sparse_file(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text(
        "epoch,a/sigma_min,a/sigma_max,b/sigma_min,b/sigma_max\n"
        "0,0.9,1.1,0,9\n1,,,,\n2,0.8,1.2,0,9\n"
    )
    figure = plotting.singular_values(path, prefix="a")
    assert legend(figure) == ["a", "Orthogonal, 1"]
    assert lines(figure)["a"] == [(1, 1.1), (3, 1.2)]


@pytest.mark.parametrize(
    "log, prefix",
    ((LOG, None), (SPECTRUM, "lstm"), ({"a/sigma_min": [1.0]}, None)),
)
def test_singular_values_without_their_columns(log, prefix):
    with pytest.raises(ValueError, match=r"SpectrumMonitor.*Received"):
        plotting.singular_values(log, prefix=prefix)


def test_gradient_flow_shows_zeros_and_leaves_gaps(tmp_path):
    norms = {"A": np.ones(4), "B": [0.0, 0.0, np.nan, 1e-3, np.inf, 1.0]}
    figure = plotting.gradient_flow(norms)
    assert legend(figure) == ["A", "B", "B, exactly 0"]
    drawn = lines(figure)
    assert drawn["A"] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    shown = [p for p in drawn["B"] if np.isfinite(p[1])]
    assert shown == [(4, 1e-3), (6, 1.0)]
    assert [x for x, _ in drawn["B, exactly 0"]] == [1, 2]
    zeros = figure.axes[0].lines[-1]
    assert zeros.get_transform() == figure.axes[0].get_xaxis_transform()
    assert all(0 < y < 0.1 for _, y in drawn["B, exactly 0"])
    assert figure.axes[0].get_yscale() == "log"
    assert is_drawn(figure, tmp_path / "flow.png")


def test_gradient_flow_of_nothing_but_zeros(tmp_path):
    figure = plotting.gradient_flow({"A": np.zeros(5), "B": np.zeros(5)})
    first, second = (lines(figure)[f"{name}, exactly 0"] for name in "AB")
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)
    assert is_drawn(figure, tmp_path / "flow.png")


def test_gradient_flow_of_what_is_measured(tmp_path):
    figure = plotting.gradient_flow(np.array([1.0, 0.5]))
    (drawn,) = lines(figure).values()
    assert drawn == [(1, 1.0), (2, 0.5)]
    assert not figure.legends
    assert legend(plotting.gradient_flow([0.0, 1.0])) == ["Exactly 0"]
    # As `GradientFlowMonitor.norms`.
    pairs = [(-1, np.ones(3)), (0, np.ones(3)), (4, np.ones(3))]
    found = legend(plotting.gradient_flow(pairs))
    assert found == ["Before training", "Epoch 1", "Epoch 5"]
    monitor = GradientFlowMonitor(np.ones((1, 3, 1)), np.ones((1, 1)))
    monitor.norms = pairs
    assert legend(plotting.gradient_flow(monitor)) == found


@pytest.mark.parametrize(
    "norms",
    ({}, [], None, "ab", [[1.0]], {"A": [-1]}, {"A": []}, {"A": [[1.0]]}),
)
def test_gradient_flow_of_wrong_norms(norms):
    with pytest.raises(ValueError, match=r"`norms`.*Expected.*Received: norms"):
        plotting.gradient_flow(norms)


@pytest.mark.parametrize("count", (1, 7, 8, 20))
def test_colors_differ(count):
    picked = {matplotlib.colors.to_hex(color) for color in colors(count)}
    assert len(picked) == count


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


def test_a_column_is_named_in_words():
    figure = plotting.learning_curves(LOG, metric="val_loss")
    axes = figure.axes[0]
    assert axes.get_ylabel() == "Validation loss"
    assert figure.get_suptitle() == "Validation loss over training"


def test_curves_that_coincide_are_all_seen():
    logs = {label: {"loss": [1.0, 1.0]} for label in "ABCD"}
    logs["E"] = {"loss": [2.0, 1.5]}
    drawn = plotting.update_curves(logs).axes[0].lines
    widths = [line.get_linewidth() for line in drawn]
    assert widths == [7.5, 5.5, 3.5, 1.5, 1.5]
    orders = [line.get_zorder() for line in drawn]
    assert orders == sorted(orders)


def test_a_notebook_shows_a_figure():
    figure = plotting.learning_curves(LOG)
    assert figure._repr_png_().startswith(b"\x89PNG")
    formatters = pytest.importorskip("IPython.core.formatters")
    data, _ = formatters.DisplayFormatter().format(figure)
    assert data["image/png"].startswith(b"\x89PNG")


def test_figures_are_not_registered_with_pyplot():
    before = pyplot.get_fignums()
    plotting.learning_curves(LOG)
    assert pyplot.get_fignums() == before


def test_missing_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.ticker", None)
    message = "`matplotlib`.*`pip install matplotlib`"
    with pytest.raises(ImportError, match=message):
        plotting.learning_curves(LOG)
