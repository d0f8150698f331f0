"""The comparison of optimizers on digits, which come with scikit-learn."""

import os
import sys

import pytest

from keras_examples import optimizers_compared
from support import records


def run(monkeypatch, *arguments):
    command = ["optimizers_compared.py", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", command)
    optimizers_compared.main()


def row(rate, seed, val, test, optimizer="Adam"):
    values = {"task": "text_lstm", "optimizer": optimizer}
    values |= {"rate": rate, "seed": seed, "val": val, "test": test}
    return {name: str(value) for name, value in values.items()}


def test_validation_chooses_and_the_test_is_told(capsys):
    rows = [
        row(0.1, 0, 2.0, 9.0),
        row(0.1, 1, 4.0, 7.0),
        # Better on the test set, and of no use where one seed diverges.
        row(0.2, 0, 4.0, 1.0),
        row(0.2, 1, 4.0, 1.0),
        row(0.3, 0, 1.0, 1.0),
        row(0.3, 1, "nan", 1.0),
        row(1.0, 0, 5.0, 5.0, "DSGD"),
    ]
    optimizers_compared.table(rows)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines == [
        "| text_lstm | DSGD | 1.0 | 5.000 | 5.000 | 0.000 |",
        "| text_lstm | Adam | 0.1 | 3.000 | 8.000 | 1.000 |",
    ]


@pytest.mark.slow
@pytest.mark.skipif(
    "TF_SPECTRAL_DATA" not in os.environ, reason="TF_SPECTRAL_DATA is unset"
)
@pytest.mark.parametrize("task", optimizers_compared.TASKS)
def test_every_task_runs(task, tmp_path, monkeypatch):
    """On a few examples, with every scale other than one."""
    make = optimizers_compared.TASKS[task]

    def few(seed):
        model, parts, batch = make(seed)
        return model, [(x[:64], y[:64]) for x, y in parts], batch

    monkeypatch.setitem(optimizers_compared.TASKS, task, few)
    run(
        monkeypatch,
        *("--tasks", task, "--optimizers", "DSGD", "SGD", "--seeds", 0),
        *("--epochs", 1, "--start", 2, "--inputs", 3, "--out", tmp_path),
    )
    rows = records.read_rows(tmp_path / "runs.csv")
    assert [row["optimizer"] for row in rows] == ["DSGD"] + 4 * ["SGD"]
    assert float(rows[0]["val"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("bad", [{}, {"start": 10.0}, {"inputs": 100.0}])
def test_nothing_is_set_and_digits_are_learned(bad, tmp_path, monkeypatch):
    options = [f"--{name}={value}" for name, value in bad.items()]
    run(
        monkeypatch,
        *("--tasks", "digits_transformer", "--optimizers", "DSGD"),
        *("--seeds", 0, "--epochs", 12, "--out", tmp_path, *options),
    )
    (found,) = records.read_rows(tmp_path / "runs.csv")
    # Chance is 90.
    assert float(found["test"]) < 30
    assert float(found["length"]) > 0
