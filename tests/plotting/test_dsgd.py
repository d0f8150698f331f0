"""Figures of optimizers that move one layer at a time."""

import numpy as np
import pytest

from tf_spectral import plotting

UPDATES = {
    "update": [1, 2, 3, 4],
    "loss": [4.0, 3.0, 2.5, 2.25],
    "local_gradient_norm": [1.0, 0.5, 0.75, np.nan],
    "test_accuracy": [0.1, np.nan, 0.3, np.nan],
    "updates/hidden/kernel": [1, 0, 1, np.nan],
    "updates/output/kernel": [0, 1, 0, np.nan],
}
EPOCHS = {"epoch": [0, 1], "loss": [1.0, 0.5], "updates/out/bias": [3, 4]}


def lines(figure):
    axes = figure.axes[0]
    return {
        line.get_label(): [tuple(p) for p in line.get_xydata()]
        for line in axes.lines
    }


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def labels(figure):
    axes = figure.axes[0]
    return figure.get_suptitle(), axes.get_xlabel(), axes.get_ylabel()


def is_drawn(figure, path):
    figure.savefig(path)
    return path.read_bytes().startswith(b"\x89PNG")


def write_csv(path, columns):
    rows = zip(*columns.values(), strict=True)
    text = [",".join(columns)]
    text += [",".join("" if v != v else str(v) for v in row) for row in rows]
    path.write_text("\n".join(text) + "\n")
    return path


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
    figure = plotting.update_curves({"A": EPOCHS}, title="T", ylabel="Y")
    assert lines(figure)["A"] == [(1, 1), (2, 0.5)]
    assert labels(figure) == ("T", "Epoch", "Y")


@pytest.mark.parametrize("logs", ({}, 3, "run.csv", {"A": 3}))
def test_update_curves_of_no_log(logs):
    with pytest.raises(ValueError, match=r"Argument `.*Expected.*Received"):
        plotting.update_curves(logs)


def test_update_curves_of_an_unknown_metric():
    with pytest.raises(ValueError, match="'loss'.*'mse'"):
        plotting.update_curves({"A": EPOCHS}, "mse")


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
    figure = plotting.layer_choices(EPOCHS, title="T")
    assert lines(figure)["out/bias"] == [(1, 3), (2, 7)]
    assert labels(figure)[:2] == ("T", "Epoch")


def test_layer_choices_without_counts():
    with pytest.raises(ValueError, match=r"updates/<weight>.*\['loss'\]"):
        plotting.layer_choices({"loss": [1.0]})


def test_local_gradient_and_its_bound(tmp_path):
    figure = plotting.local_gradient({"q = 2": UPDATES})
    squares, least, bound = figure.axes[0].lines
    assert squares.get_ydata().tolist() == [1.0, 0.25, 0.5625]
    assert least.get_ydata().tolist() == [1.0, 0.25, 0.25]
    np.testing.assert_allclose(bound.get_ydata(), [8.0, 4.0, 8 / 3])
    assert legend(figure) == ["q = 2, smallest so far", "Bound, 2 · 4 / T"]
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert is_drawn(figure, tmp_path / "norm.png")


def test_one_bound_for_runs_that_start_alike():
    longer = {name: UPDATES[name] * 2 for name in UPDATES}
    longer["update"] = list(range(1, 9))
    other = {**UPDATES, "loss": [5.0, 3.0, 2.0, 1.0]}
    figure = plotting.local_gradient({"A": UPDATES, "B": longer, "C": other})
    bounds = {x: ys for x, ys in lines(figure).items() if "Bound" in x}
    assert list(bounds) == ["Bound, 2 · 4 / T", "Bound, 2 · 5 / T"]
    assert bounds["Bound, 2 · 4 / T"][-1] == (7, 8 / 7)


def test_local_gradient_needs_a_row_for_each_update():
    log = {"loss": [1.0], "local_gradient_norm": [1.0]}
    with pytest.raises(ValueError, match="row for each update"):
        plotting.local_gradient({"A": log})
    log = {"update": [1], "loss": [1.0]}
    with pytest.raises(ValueError, match="local_gradient_norm"):
        plotting.local_gradient({"A": log})
