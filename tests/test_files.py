"""Files are whole or as they were."""

import os

import numpy as np
import pytest

from tf_spectral import files


def test_a_file_is_replaced_when_all_is_written(tmp_path):
    path = tmp_path / "array.npz"
    for value in (1, 2):
        with files.replaced(path) as beside:
            np.savez(beside, x=value)
            if path.exists():
                assert np.load(path)["x"] == value - 1
        assert np.load(path)["x"] == value
    assert os.listdir(tmp_path) == ["array.npz"]


def test_a_failure_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "table.md"
    files.write_text(path, "before\n")
    for error in (OSError("disk full"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            with files.replaced(path) as beside:
                beside.write_text("half")
                raise error
    assert path.read_text() == "before\n"
    assert os.listdir(tmp_path) == ["table.md"]


def test_what_a_link_leads_to_is_replaced(tmp_path):
    real, link = tmp_path / "disk" / "table.md", tmp_path / "table.md"
    real.parent.mkdir()
    link.symlink_to(real)
    for text in ("one", "two"):
        files.write_text(link, text)
        assert link.is_symlink() and real.read_text() == text


HEADER = "epoch,loss\r\n"
ROWS = ["0,2.5\r\n", "1,2.25\r\n", "2,2.125\r\n"]


def test_a_table_is_cut_to_its_last_whole_row(tmp_path):
    path, text = tmp_path / "log.csv", HEADER + "".join(ROWS)
    for length in range(len(text) + 1):
        path.write_text(text[:length], newline="")
        files.cut_table(path)
        whole = text[: text[:length].rfind("\n") + 1]
        assert path.read_bytes().decode() == whole
    for last in range(3):
        for torn in ("", "3,1", "3,1.5\r\n4,"):
            path.write_text(text + torn, newline="")
            files.cut_table(path, last)
            expected = HEADER + "".join(ROWS[: last + 1])
            assert path.read_bytes().decode() == expected
    for torn in ("", HEADER, text, text + "3,1"):
        path.write_text(torn, newline="")
        with pytest.raises(ValueError, match=r"log\.csv.*begins with 3"):
            files.cut_table(path, last=3)
        assert path.read_bytes().decode() == torn
