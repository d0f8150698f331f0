"""The figures and tables of docs/results are those of the logs beside them."""

import sys

import pytest

from support import redraw


@pytest.mark.slow
def test_all_is_drawn_from_the_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["redraw.py", "--out", str(tmp_path)])
    redraw.main()
    kept = {
        path.relative_to(redraw.RESULTS): path.stat().st_mtime_ns
        for path in redraw.RESULTS.rglob("*.png")
    }
    drawn = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")}
    assert drawn == set(kept)
    again = [p for p in drawn if is_newer(tmp_path / p, kept[p])]
    assert len(again) == 37
    # Of all seeds, not of the first alone.
    for name in ("multilabel_bibtex/table.md",):
        found = (tmp_path / name).read_text()
        assert found == (redraw.RESULTS / name).read_text()


def is_newer(path, time):
    """Whether a file is no copy: those have the time of the original."""
    return path.stat().st_mtime_ns > time
