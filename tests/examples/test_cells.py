"""Recurrent layers by name, as the options `--cell` of the examples take."""

import argparse

import common
import keras
import numpy as np
import pytest

from tf_spectral.initializers import GaussianReflectors

OPTIONS = {
    "reflectors": 3,
    "sigma_radius": 0.1,
    "reflector_initializer": GaussianReflectors(0.1),
}


@pytest.mark.parametrize("cell", common.CELLS)
def test_each_cell_reads_a_sequence(cell):
    layer = common.recurrent_layer(cell, 5, OPTIONS, return_sequences=True)
    assert layer(np.ones((2, 4, 3), "float32")).shape == (2, 4, 5)


@pytest.mark.parametrize("cell", common.CELLS)
def test_each_cell_takes_an_initializer_of_the_input_kernel(cell):
    layer = common.recurrent_layer(cell, 5, OPTIONS, kernel_initializer="zeros")
    layer.build((None, None, 3))
    assert not np.any(keras.ops.convert_to_numpy(layer.cell.kernel))


@pytest.mark.parametrize("cell", ["orthogonal", "ornn"])
def test_orthogonal_cells_have_no_free_singular_value(cell):
    layer = common.recurrent_layer(cell, 5, OPTIONS)
    layer.build((None, None, 3))
    names = [v.name for v in layer.trainable_variables]
    assert not any("sigma" in name for name in names)
    assert ("v_reflectors" in names) == (cell == "orthogonal")


def test_the_activation_is_that_of_spectral_cells():
    layer = common.recurrent_layer("ornn", 5, OPTIONS, activation="relu")
    assert layer.activation is keras.activations.relu
    layer = common.recurrent_layer("lstm", 5, OPTIONS, activation="relu")
    assert layer.activation is keras.activations.tanh


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path):
    args = argparse.Namespace(units=5, out=tmp_path, cell=["spectral"])
    common.write_command(tmp_path, args)
    (tmp_path / "runs.csv").write_text("")
    common.write_command(tmp_path, argparse.Namespace(**{**vars(args)}))
    args.units = 6
    with pytest.raises(SystemExit, match="other settings"):
        common.write_command(tmp_path, args)
