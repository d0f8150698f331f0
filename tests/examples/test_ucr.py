"""The example of the UCR archive on two small sets of its own."""

import argparse
import csv
import sys

import numpy as np
import pytest

from keras_examples import ucr
from support import cells
from support import ucr_paper


@pytest.mark.parametrize(
    "length, features", [(1, 1), (24, 4), (176, 11), (251, 1), (400, 20)]
)
def test_a_step_reads_the_largest_divisor_up_to_the_root(length, features):
    assert ucr.features_of_a_step(length) == features


def write_set(folder, name, rows=12):
    rng = np.random.default_rng(0)
    (folder / name).mkdir()
    for part in ("TRAIN", "TEST"):
        labels = np.arange(rows) % 2
        series = rng.normal(size=(rows, 8)) + 3 * labels[:, None]
        table = np.concatenate([labels[:, None], series], axis=1)
        path = folder / name / f"{name}_{part}.tsv"
        np.savetxt(path, table, "%.6g", "\t")


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ucr.py", *map(str, arguments)])
    ucr.main()


@pytest.mark.parametrize("cell", ucr.CELLS)
def test_weights_are_those_that_act(cell):
    """Two values a step and two classes; a trainable initial state each."""
    args = argparse.Namespace(
        reflectors=2, sigma_radius=0.1, reflector_scale=0.1, units=4, batches=1
    )
    model = ucr.build_model(cell, 1, 0.01, 0.5, (4, 2), 2, args)
    count = {
        "simple": (2 + 4 + 1) * 4 + (4 + 1) * 2,
        "lstm": 4 * (2 + 4 + 1) * 4 + (4 + 1) * 2,
        "ornn": 2 * 4 - 1 + (2 + 1 + 1) * 4 + (4 + 1) * 2,
        "spectral": (2 + 2 + 1) * 4 - 2 + (2 + 1 + 1) * 4 + (4 + 1) * 2,
    }
    assert cells.count_weights(model) == count[cell]


def test_sets_that_cannot_be_read_are_left_out(tmp_path, capsys):
    write_set(tmp_path, "One")
    write_set(tmp_path, "Padded")
    with (tmp_path / "Padded" / "Padded_TRAIN.tsv").open("a") as file:
        file.write("1" + "\tNaN" * 8 + "\n")
    args = argparse.Namespace(folder=str(tmp_path))
    assert ucr.readable(["One", "Padded"], args) == ["One"]
    assert "Padded is left out" in capsys.readouterr().out


@pytest.mark.slow
def test_all_cells_on_a_folder_of_ones_own(tmp_path, monkeypatch, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    write_set(data, "One")
    write_set(data, "Padded")
    with (data / "Padded" / "Padded_TRAIN.tsv").open("a") as file:
        file.write("1" + "\tNaN" * 8 + "\n")
    arguments = ("--folder", data, "--out", out, "--seeds", 1, "--epochs", 2)
    arguments = (*arguments, "--units", 4, "--reflectors", 2, "--noise", 0.5)
    arguments = (*arguments, "--batches", 2)
    run(monkeypatch, *arguments)
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == list(ucr.CELLS)
    assert {row["set"] for row in rows} == {"One"}
    assert "Padded is left out" in capsys.readouterr().out
    before = (out / "runs.csv").read_text()
    run(monkeypatch, *arguments)
    assert (out / "runs.csv").read_text() == before
    run(monkeypatch, *arguments, "--rates", 0.02, "--cell", "simple")
    after = (out / "runs.csv").read_text()
    assert after.startswith(before)
    assert after.splitlines()[-1].startswith("One,simple,2,0.02,0.5,0,")


def test_the_table_has_the_papers_figures_and_means():
    rows = [
        {"set": "CBF", "cell": cell, "accuracy": v, "weights": "7", "noise": n}
        for cell, v, n in (
            ("lstm", "0.5", "0.3"),
            ("lstm", "0.7", "0.3"),
            ("simple", "1", "0.6"),
        )
    ]
    cells = ["simple", "lstm"]
    text = ucr_paper.table(rows, ["CBF", "Mine"], cells, ["noise"])
    lines = text.splitlines()
    assert {line.count("|") for line in lines} == {10}
    assert "| 1.000 | 0.702 | 7 / 1476 | 0.6 |" in lines[2]
    assert "0.600 (0.141) | 0.967 | 7 / 5444 | 0.3 |" in lines[2]
    assert "**1.000** | **0.702**" in text.splitlines()[-1]


def test_batches_go_through_all_series_again_and_again():
    x, y = np.arange(6.0).reshape(6, 1, 1), np.arange(6)
    batches = ucr.batches_of(x, y, 3).take(6).as_numpy_iterator()
    inputs, labels = map(np.array, zip(*batches, strict=True))
    np.testing.assert_array_equal(inputs[..., 0, 0], labels)
    passes = labels.reshape(3, 6)
    np.testing.assert_array_equal(np.sort(passes), np.tile(y, (3, 1)))
    assert len({tuple(order) for order in passes}) > 1
    ((whole, _),) = ucr.batches_of(x, y).as_numpy_iterator()
    np.testing.assert_array_equal(whole, x)


def test_the_best_epoch_has_the_least_error_then_the_least_loss():
    logs = [
        {"val_accuracy": 0.5, "val_loss": 0.1},
        {"val_accuracy": 0.75, "val_loss": 9.0},
        {"val_accuracy": 0.75, "val_loss": 8.0},
        {"val_accuracy": 0.75, "val_loss": 8.5},
    ]
    for epoch, row in enumerate(logs):
        ucr.SmallestError().on_epoch_end(epoch, row)
    assert np.argmin([row["val_error"] for row in logs]) == 2


def test_of_whole_runs_the_least_error_then_the_least_loss_is_chosen():
    def rows(cell, rate, noise, *found):
        choice = {"epochs": "2", "learning_rate": rate, "noise": noise}
        return [
            {"set": "A", "cell": cell, **choice, "validation": v, "loss": loss}
            for v, loss in found
        ]

    best = rows("lstm", "0.01", "0.3", ("0.9", "3"), ("0.5", "3"))
    least = rows("simple", "0.1", "0.6", ("0.4", "1"), ("0.2", "0.1"))
    others = (
        rows("lstm", "0.01", "0.0", ("0.6", "0"), ("0.7", "0"))
        + rows("lstm", "0.1", "0.3", ("0.8", "0"), ("0.5", "0"))
        + rows("simple", "0.1", "0.0", ("0.2", "0.5"), ("0.4", "0.9"))
        + rows("simple", "0.2", "0.0", ("1.0", "0.1"))
    )
    rows = [*others[:2], *best, *others[2:], *least]
    assert ucr.chosen(rows) == best + least
