"""Deep networks of the examples: how they are made, and one short run each."""

import argparse
import csv
import sys

import keras
import numpy as np
import pytest

from keras_examples import deep_mlp
from keras_examples import multilabel
from support import deep_networks
from tf_spectral.layers import SpectralDense


def options(**changes):
    defaults = {
        "layers": 7,
        "units": 5,
        "reflectors": 2,
        "reflector_scale": 0.1,
        "sigma_center": 1.05,
        "sigma_radius": 0.1,
        "sigma_penalty": None,
        "slope": 0.2,
    }
    return argparse.Namespace(**{**defaults, **changes})


def network(kind, **changes):
    inputs = keras.Input((3,))
    hidden = deep_networks.hidden_layers(kind, inputs, options(**changes))
    return keras.Model(inputs, hidden)


@pytest.mark.parametrize("kind", deep_networks.KINDS)
@pytest.mark.parametrize("layers", [1, 2, 6, 7])
def test_there_are_as_many_layers_as_were_asked_for(kind, layers):
    model = network(kind, layers=layers)
    dense = (keras.layers.Dense, SpectralDense)
    assert sum(isinstance(x, dense) for x in model.layers) == layers
    spectral = sum(isinstance(x, SpectralDense) for x in model.layers)
    assert spectral == (layers - 1 if kind.startswith("spectral") else 0)


def test_a_residual_branch_starts_from_nothing():
    model = network("spectral_resnet")
    centers = [
        x.sigma_center for x in model.layers if isinstance(x, SpectralDense)
    ]
    assert centers == [1.05, 0.0] * 3
    # Each block is then the identity, but for the activation that follows.
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    first = keras.Model(model.inputs[0], model.layers[2].output)(x)
    expected = keras.ops.leaky_relu(first, 0.2**3)
    outputs = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(
        outputs, keras.ops.convert_to_numpy(expected), atol=1e-6
    )


def test_a_penalty_takes_the_place_of_bounds():
    model = network("spectral_resnet", sigma_penalty=0.5)
    spectral = [x for x in model.layers if isinstance(x, SpectralDense)]
    for layer, center in zip(spectral, [1.05, 0.0] * 3, strict=True):
        config = layer.get_config()
        assert config["sigma_mode"] == "free"
        assert config["sigma_center"] == center
        (sigma,) = (v for v in layer.variables if "sigma" in v.name)
        sigma.assign(np.full(5, center + 2.0))
    # 6 layers of 5 values, each 2 away: 0.5 * 4 for each.
    total = sum(float(loss) for loss in model.losses)
    np.testing.assert_allclose(total, 6 * 5 * 0.5 * 4, rtol=1e-5)


def test_dropout_follows_each_activation():
    inputs = keras.Input((3,))
    hidden = deep_networks.hidden_layers("mlp", inputs, options(), dropout=0.1)
    model = keras.Model(inputs, hidden)
    rates = [
        x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)
    ]
    assert rates == [0.1] * 7


@pytest.mark.slow
def test_deep_mlp_on_digits(tmp_path, monkeypatch):
    arguments = f"--layers 4 --units 8 --epochs 2 --out {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["deep_mlp.py", *arguments.split()])
    deep_mlp.main()
    table = (tmp_path / "table_4.md").read_text()
    kinds = ("MLP", "ResNet", "Spectral-MLP", "Spectral-ResNet")
    assert all(f"| {kind} |" in table for kind in kinds)
    with (tmp_path / "spectral_mlp_4" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    # The defaults: 1.06, give or take 0.1.
    assert all(0.96 <= float(row["sigma_min"]) <= 1.06 for row in rows)
    assert all(1.06 <= float(row["sigma_max"]) <= 1.16 for row in rows)


def write_labels(folder):
    rng = np.random.default_rng(0)
    folder.mkdir()
    arrays = {}
    for part, rows in (("train", 40), ("test", 20)):
        x = rng.integers(0, 2, (rows, 6)).astype("uint8")
        arrays[f"x_{part}"] = x
        arrays[f"y_{part}"] = np.concatenate([x, 1 - x], axis=1)
    np.savez(folder / "mine.npz", **arrays)


def test_multilabel_rows_become_a_table_and_a_figure(tmp_path):
    """Means over the seeds that ran, deviations of several."""
    rows = [
        {"layers": "2", "kind": "mlp", "seed": str(seed)}
        | {name: str(value + i) for i, name in enumerate(multilabel.PRECISIONS)}
        for seed, value in enumerate((0.25, 0.75))
    ]
    rows.append(dict(rows[0], kind="spectral_mlp"))
    args = argparse.Namespace(
        layers=[2], kind=["mlp", "spectral_mlp"], data="mine", out=tmp_path
    )
    multilabel.report(rows, args)
    lines = (tmp_path / "table.md").read_text().splitlines()[2:]
    assert lines == [
        "| 2 | MLP | 0.5000 (0.3536) | 1.5000 (0.3536) | 2.5000 (0.3536) |",
        "| 2 | Spectral-MLP "
        "| 0.2500 (0.0000) | 1.2500 (0.0000) | 2.2500 (0.0000) |",
    ]
    assert (tmp_path / "precision.png").exists()


@pytest.mark.slow
def test_multilabel_on_a_folder_of_ones_own(tmp_path, monkeypatch):
    write_labels(tmp_path / "data")
    out = tmp_path / "out"
    arguments = (
        f"--data mine --folder {tmp_path / 'data'} --out {out} --layers 2 3 "
        "--units 8 --reflectors 2 --batch 8 --epochs 30 --seeds 1 "
        "--kind mlp spectral_resnet --learning-rate 1e-2"
    )
    monkeypatch.setattr(sys, "argv", ["multilabel.py", *arguments.split()])
    multilabel.main()
    rows = (out / "table.md").read_text().splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| {layers}", kind]
        for layers in (2, 3)
        for kind in ("MLP", "Spectral-ResNet")
    ]
    # Half of the labels are true: chance is a half.
    for row in rows:
        assert float(row.split(" | ")[2].split()[0]) > 0.7
    assert (out / "precision.png").exists()
