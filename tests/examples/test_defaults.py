"""The study of layers as they come, on digits, which need no download."""

import sys

import numpy as np
import pytest

from keras_examples import defaults
from support import records


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["defaults.py", *map(str, arguments)])
    defaults.main()


def test_it_goes_on_and_prints_a_table(tmp_path, monkeypatch, capsys):
    options = ("--tasks", "digits", "--seeds", 0, "--rates", 1e-3)
    options += ("--updates", 3, "--units", 4, "--out", tmp_path)
    run(monkeypatch, *options, "--layers", "SpectralRNN")
    run(monkeypatch, *options, "--layers", "SpectralRNN", "SimpleRNN")
    rows = records.read_rows(tmp_path / "runs.csv")
    assert [row["layer"] for row in rows] == ["SpectralRNN", "SimpleRNN"]
    lines = capsys.readouterr().out.splitlines()
    assert "| Adam(0.001) | seeds | SimpleRNN | SpectralRNN |" in lines


def test_means_are_over_the_seeds_that_all_layers_have(capsys):
    accuracies = {("GRU", 0): 0.5, ("GRU", 1): 0.1, ("LSTM", 0): 0.7}
    defaults.table(
        [
            {"task": "CBF", "layer": layer, "rate": "0.001", "seed": str(seed)}
            | {"accuracy": str(accuracy)}
            for (layer, seed), accuracy in accuracies.items()
        ]
    )
    *_, row, mean = capsys.readouterr().out.splitlines()
    assert row == "| CBF | 1 | 0.500 | 0.700 |"
    assert mean == "| mean | | 0.500 | 0.700 |"


@pytest.mark.parametrize("name", defaults.LAYERS)
def test_every_layer_of_it_can_be_made(name):
    model = defaults.build_model(name, (5, 1), 3, True, 4)
    assert model.output_shape == (None, 3)


def test_padding_is_in_front_and_nothing_else_is_zero():
    x = np.random.default_rng(0).normal(size=(6, 12, 1))
    x[0, 3] = 0
    padded = defaults.cut(x, seed=0)[..., 0]
    starts = [int(np.argmax(row != 0)) for row in padded]
    assert max(starts) > 3
    for row, start in zip(padded, starts):
        assert not row[:start].any() and row[start:].all()
        assert start < 8


def test_each_example_comes_once_in_an_epoch():
    x = np.arange(64)
    batches = defaults.Batches(x, x, 4, seed=0)
    seen = np.concatenate([batches[i][0] for i in range(2)])
    assert sorted(seen) == list(x) and len(batches) == 4
