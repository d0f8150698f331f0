"""Options of the examples that use one part of the library each."""

import argparse
import json
import sys

import keras
import numpy as np
import pytest

from keras_examples import adding
from keras_examples import pixel_images
from keras_examples import principal_components
from tf_spectral import plotting


def run(module, monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments.split()])
    module.main()


def adding_options(**changes):
    values = {"units": 4, "reflectors": 2, "sigma_radius": 0.2, "length": 5}
    values |= {"learning_rate": 1e-3, "jit": False, "halve_radius": 2}
    return argparse.Namespace(**{**values, **changes})


def test_the_radius_is_halved_where_it_can_be():
    args = adding_options()
    assert adding.schedules("lstm", args) == []
    assert adding.schedules("spectral", adding_options(halve_radius=None)) == []
    (schedule,) = adding.schedules("spectral", args)
    model = adding.build_model("spectral", args)
    schedule.set_model(model)
    for epoch, radius in ((0, 0.2), (2, 0.1), (4, 0.05)):
        logs = {}
        schedule.on_epoch_begin(epoch)
        schedule.on_epoch_end(epoch, logs)
        np.testing.assert_allclose(logs["sigma_radius"], radius, rtol=1e-6)
    sigma = keras.ops.convert_to_numpy(model.layers[0].singular_values())
    assert abs(sigma - 1).max() <= 0.05


def test_the_bound_is_measured_on_simple_cells():
    x, y = np.zeros((6, 4, 1)), np.zeros(6)
    args = argparse.Namespace(bound=2)
    assert pixel_images.bound_monitors("lstm", x, y, args) == []
    (monitor,) = pixel_images.bound_monitors("ornn", x, y, args)
    assert (len(monitor.x), len(monitor.y), monitor.examples) == (2, 2, 6)
    args = argparse.Namespace(bound=None)
    assert pixel_images.bound_monitors("ornn", x, y, args) == []


@pytest.mark.slow
def test_a_projection_finds_the_principal_components(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)) * [4.0, 3.0, 1.0, 0.5, 0.2, 0.1]
    x = x @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    parts = [(x.astype("float32"), None)] * 3
    monkeypatch.setattr(
        principal_components.datasets, "images", lambda *args, **kwargs: parts
    )
    run(
        principal_components,
        monkeypatch,
        f"--components 2 --epochs 60 --batch 32 --out {tmp_path}",
    )
    found = json.loads((tmp_path / "shares.json").read_text())["2"]
    centered = x - x.mean(axis=0)
    values = np.linalg.eigvalsh(centered.T @ centered)[::-1]
    best = values[:2].sum() / values.sum()
    np.testing.assert_allclose(found["best"], best, rtol=1e-5)
    assert 0.995 * best < found["share"] < best + 1e-5


@pytest.mark.slow
def test_adding_with_less_and_less_room(tmp_path, monkeypatch):
    run(
        adding,
        monkeypatch,
        "--length 4 --units 4 --reflectors 2 --batch 4 --iterations 300 "
        f"--sigma-radius 0.2 --halve-radius 1 --out {tmp_path}",
    )
    log = plotting.read_log(tmp_path / "spectral" / "log.csv")
    np.testing.assert_allclose(log["sigma_radius"], [0.2, 0.1, 0.05])
    (margin,) = (log[name] for name in log if name.endswith("spectral_margin"))
    assert (margin <= log["sigma_radius"] + 1e-6).all()


@pytest.mark.slow
def test_pixels_with_the_bound(tmp_path, monkeypatch):
    run(
        pixel_images,
        monkeypatch,
        "--units 8 --reflectors 2 --epochs 1 --bound 50 "
        f"--out {tmp_path / 'out'} --export {tmp_path / 'export'}",
    )
    log = plotting.read_log(tmp_path / "out" / "spectral" / "log.csv")
    assert np.isfinite(log["generalization/log_gradient_bound"]).all()
    assert (tmp_path / "out" / "table.md").exists()
    if keras.backend.backend() == "tensorflow":
        assert (tmp_path / "export" / "pixel_digits" / "1").is_dir()
