"""Recurrent layers by name, as the options `--cell` of the examples take."""

import argparse

import keras
import numpy as np
import pytest

from support import cells
from support import records
from tf_spectral.initializers import GaussianReflectors

OPTIONS = {
    "reflectors": 3,
    "sigma_radius": 0.1,
    "reflector_initializer": GaussianReflectors(0.1),
}


@pytest.mark.parametrize("cell", cells.CELLS)
def test_each_cell_reads_a_sequence(cell):
    layer = cells.recurrent_layer(cell, 5, OPTIONS, return_sequences=True)
    assert layer(np.ones((2, 4, 3), "float32")).shape == (2, 4, 5)


@pytest.mark.parametrize("cell", cells.CELLS)
def test_each_cell_takes_an_initializer_of_the_input_kernel(cell):
    layer = cells.recurrent_layer(cell, 5, OPTIONS, kernel_initializer="zeros")
    layer.build((None, None, 3))
    assert not np.any(keras.ops.convert_to_numpy(layer.cell.kernel))


@pytest.mark.parametrize("cell", ["orthogonal", "ornn"])
def test_orthogonal_cells_have_no_free_singular_value(cell):
    layer = cells.recurrent_layer(cell, 5, OPTIONS)
    layer.build((None, None, 3))
    names = [v.name for v in layer.trainable_variables]
    assert not any("sigma" in name for name in names)
    assert ("v_reflectors" in names) == (cell == "orthogonal")


def test_the_activation_is_that_of_spectral_cells():
    layer = cells.recurrent_layer("ornn", 5, OPTIONS, activation="relu")
    assert layer.activation is keras.activations.relu
    layer = cells.recurrent_layer("lstm", 5, OPTIONS, activation="relu")
    assert layer.activation is keras.activations.tanh


def test_results_of_another_command_are_not_written_over(tmp_path):
    def args(**changes):
        values = {"units": 5, "out": tmp_path, "cell": ["spectral"]}
        return argparse.Namespace(**{**values, **changes})

    records.write_command(tmp_path, args())
    # Nothing was made yet.
    records.write_command(tmp_path, args(units=6))
    (tmp_path / ".part-log.csv").write_text("half")
    records.write_command(tmp_path, args())
    for result in ("log.csv", "runs.csv", "copying.png"):
        (tmp_path / result).write_text("kept")
        records.write_command(tmp_path, args(cell=["lstm"], out="x", seeds=9))
        records.write_command(tmp_path, args())
        for other in ({"units": 6}, {"rate": 1.0}):
            with pytest.raises(SystemExit, match=f"{result}.*other settings"):
                records.write_command(tmp_path, args(**other))
        with pytest.raises(SystemExit, match="other settings"):
            records.write_command(tmp_path, args(cell=["lstm"]), fixed=True)
        for damaged in ("", "{", "[]"):
            (tmp_path / "command.json").write_text(damaged)
            with pytest.raises(SystemExit, match="other settings"):
                records.write_command(tmp_path, args())
        (tmp_path / "command.json").unlink()
        with pytest.raises(SystemExit, match="other settings"):
            records.write_command(tmp_path, args())
        (tmp_path / result).unlink()
        records.write_command(tmp_path, args())
    for units in (6, 7):
        records.write_command(tmp_path, args(units=units), without=("units",))
        (tmp_path / "table_6.md").write_text("kept")
    with pytest.raises(SystemExit, match="is a file"):
        records.write_command(tmp_path / ".part-log.csv", args())


def test_trainings_that_are_done_are_not_done_again(tmp_path):
    args = argparse.Namespace(out=tmp_path, units=5)
    done = []

    def run(name, seed, args):
        done.append((name, seed))
        return {"name": name, "seed": seed, "loss": 0.5 * seed}

    plan = [(name, seed) for name in "ab" for seed in (1, 2)]

    def all_rows():
        return records.run_all(plan, run, args, key=("name", "seed"))

    rows = all_rows()
    assert done == plan and rows == all_rows()
    path = tmp_path / "runs.csv"
    text = path.read_text()
    # A kill while a row is written, and while the first one is.
    for length in (len(text) - 1, len(text) - 4, 8, 0):
        path.write_text(text[:length])
        assert all_rows() == rows
        assert path.read_text() == text
    path.write_text(text.replace("a,1,0.5\n", "a,1,0.5"))
    with pytest.raises(SystemExit, match="line 2: expected 3 values"):
        all_rows()
