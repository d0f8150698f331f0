"""Figures of gradients: over steps, planes of rotation and updates."""

import numpy as np
import pytest

from tests.plotting.figures import UPDATES
from tests.plotting.figures import is_drawn
from tests.plotting.figures import legend
from tests.plotting.figures import lines
from tf_spectral import plotting
from tf_spectral.callbacks import GradientFlowMonitor


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


def heights(figure):
    return [
        [bar.get_height() for bar in container]
        for container in figure.axes[0].containers
    ]


def test_histograms_share_their_bins_and_leave_zeros_out(tmp_path):
    values = {"start": [1.0, -1.0, 0.0, np.nan], "end": [[10.0], [100.0]]}
    figure = plotting.partial_derivatives(values, bins=2)
    assert heights(figure) == [[2, 0], [0, 2]]
    axes = figure.axes[0]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["start", "end"]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_one_value_alone_has_a_bin():
    assert sum(heights(plotting.partial_derivatives({"a": [3.0]}))[0]) == 1


@pytest.mark.parametrize("values", [[1.0], {}, {"a": [0.0, np.inf]}])
def test_nothing_to_draw(values):
    with pytest.raises(ValueError, match="nothing to draw. Expected a dict"):
        plotting.partial_derivatives(values)
