"""Figures of columns of logs over epochs and updates."""

import pytest

from tests.plotting.figures import EPOCHS
from tests.plotting.figures import LOG
from tests.plotting.figures import LOSS
from tests.plotting.figures import UPDATES
from tests.plotting.figures import is_drawn
from tests.plotting.figures import labels
from tests.plotting.figures import legend
from tests.plotting.figures import lines
from tests.plotting.figures import write_csv
from tf_spectral import plotting

SPECTRUM = {
    "epoch": [0, 1, 2],
    "rnn/kernel/sigma_min": [0.9, 0.95, 0.97],
    "rnn/kernel/sigma_max": [1.0, 1.02, 1.03],
    "dense/kernel/sigma_min": [0.1, 0.2, 0.3],
    "dense/kernel/sigma_max": [2.0, 2.1, 2.2],
    "rnn/kernel/spectral_margin": [0.1, 0.05, 0.03],
}


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


MOVED = {"epoch": [0, 1], "loss": [1.0, 0.5], "updates/out/bias": [3, 4]}


def test_update_curves_of_files(tmp_path):
    path = write_csv(tmp_path / "run.csv", UPDATES)
    other = {"update": [1, 2], "loss": [2.0, 1.0]}
    figure = plotting.update_curves(
        {"DSGD": path, "RANDOM": other}, log_scale=True, dashed=["RANDOM"]
    )
    assert legend(figure) == ["DSGD", "RANDOM"]
    assert lines(figure)["DSGD"] == [(1, 4), (2, 3), (3, 2.5), (4, 2.25)]
    assert lines(figure)["RANDOM"] == [(1, 2), (2, 1)]
    assert [line.get_linestyle() for line in figure.axes[0].lines] == [
        "-",
        "--",
    ]
    assert labels(figure) == ("Loss over updates", "Update", "Loss")
    assert figure.axes[0].get_yscale() == "log"
    assert is_drawn(figure, tmp_path / "loss.png")


def test_update_curves_mark_a_baseline():
    figure = plotting.update_curves({"A": UPDATES}, baseline=0.25)
    assert legend(figure) == ["A", "Baseline, 0.25"]
    assert {y for _, y in lines(figure)["Baseline, 0.25"]} == {0.25}


def test_update_curves_leave_out_rows_without_the_metric():
    figure = plotting.update_curves({"A": UPDATES}, "test_accuracy")
    assert lines(figure)["A"] == [(1, 0.1), (3, 0.3)]
    assert labels(figure)[2] == "Test accuracy"


def test_update_curves_count_epochs_from_one():
    figure = plotting.update_curves({"A": MOVED}, title="T", ylabel="Y")
    assert lines(figure)["A"] == [(1, 1), (2, 0.5)]
    assert labels(figure) == ("T", "Epoch", "Y")


@pytest.mark.parametrize("logs", ({}, 3, "run.csv", {"A": 3}))
def test_update_curves_of_no_log(logs):
    with pytest.raises(ValueError, match=r"Argument `.*Expected.*Received"):
        plotting.update_curves(logs)


def test_update_curves_of_an_unknown_metric():
    with pytest.raises(ValueError, match="'loss'.*'mse'"):
        plotting.update_curves({"A": MOVED}, "mse")


def test_layer_choices_are_counted(tmp_path):
    path = write_csv(tmp_path / "run.csv", UPDATES)
    figure = plotting.layer_choices(path)
    assert legend(figure) == ["hidden/kernel", "output/kernel"]
    drawn = lines(figure)
    assert drawn["hidden/kernel"] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert drawn["output/kernel"] == [(1, 0), (2, 1), (3, 1), (4, 1)]
    assert labels(figure)[1] == "Update"
    assert is_drawn(figure, tmp_path / "choices.png")


def test_layer_choices_of_epochs():
    figure = plotting.layer_choices(MOVED, title="T")
    assert lines(figure)["out/bias"] == [(1, 3), (2, 7)]
    assert labels(figure)[:2] == ("T", "Epoch")


def test_layer_choices_without_counts():
    with pytest.raises(ValueError, match=r"updates/<weight>.*\['loss'\]"):
        plotting.layer_choices({"loss": [1.0]})
