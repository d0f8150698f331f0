"""The common look of the figures."""

import sys

import matplotlib.colors
import pytest
from matplotlib import pyplot

from tests.plotting.figures import LOG
from tf_spectral import plotting
from tf_spectral.plotting.canvas import colors


@pytest.mark.parametrize("count", (1, 7, 8, 20))
def test_colors_differ(count):
    picked = {matplotlib.colors.to_hex(color) for color in colors(count)}
    assert len(picked) == count


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
