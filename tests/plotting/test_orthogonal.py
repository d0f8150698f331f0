"""The figure of partial derivatives."""

import numpy as np
import pytest

from tf_spectral import plotting


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
