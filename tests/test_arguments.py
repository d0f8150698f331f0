"""Every argument of everything public, with values that nobody should pass.

A value is taken, through construction, call, configuration and back, with
finite numbers as the result, or refused by a `ValueError` or `TypeError` that
names the argument.
"""

import itertools

import keras
import numpy as np
import pytest

from tests import arguments
from tests.argument_cases import CASES
from tests.helpers import BACKEND
from tf_spectral import bounds
from tf_spectral import layers
from tf_spectral import optimizers
from tf_spectral import regularizers

NAMES = arguments.public_names()
# Half a second for each figure, training or export that comes about.
LONG = ("callbacks", "export", "plotting")


def faults(name, grid):
    """What is wrong with pairs of an argument and the name of a value."""
    case, thing = CASES[name], NAMES[name]
    found = []
    for argument, label in grid:
        if (BACKEND, argument, label) == ("torch", "name", "text 0.5"):
            # PyTorch allows no layer a name with a point.
            continue
        value = arguments.VALUES[label]()
        fault = arguments.fault_of(
            lambda value, argument=argument: case.run(thing, argument, value),
            argument,
            value,
            case,
        )
        if fault:
            found.append(f"{name}({argument}={label}): {fault}")
    return found


def test_every_public_name_has_a_case():
    assert set(NAMES) == set(CASES)


def test_one_value_for_each_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = itertools.cycle(arguments.VALUES)
    found = []
    for name in NAMES:
        if not name.startswith(LONG):
            names = CASES[name].arguments(NAMES[name])
            found += faults(name, zip(names, labels))
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_value_for_each_argument(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = CASES[name].arguments(NAMES[name])
    found = faults(name, itertools.product(names, arguments.VALUES))
    assert not found, "\n".join(found)


HUGE, NAN, INF = 10**400, float("nan"), float("inf")


@pytest.mark.parametrize(
    "thing,options",
    [
        (optimizers.SRCD, {"epsilon": ["x", NAN, -INF]}),
        (optimizers.SRCD, {"coordinate_scale": [INF, NAN, HUGE, True]}),
        (optimizers.SRCD, {"learning_rate": [NAN, INF, "x", True]}),
        (optimizers.SRGD, {"momentum": [NAN, 1.0, True]}),
        (optimizers.SRGD, {"euclidean_optimizer": [{}, "x", 1]}),
        (optimizers.DSGD, {"seed": ["x", -1, 2**31, True, HUGE]}),
        (optimizers.DSGD, {"clipvalue": [NAN, "x"], "use_ema": [1, "no"]}),
        (regularizers.SingularValues, {"strength": [HUGE, 1e30, True]}),
        (lambda **k: layers.SpectralDense(2, **k), {"sigma_center": [1e30]}),
        (lambda **k: layers.SpectralDense(2, **k), {"sigma_center": [HUGE]}),
        (lambda **k: layers.SpectralDense(2, **k), {"annealed_radius": [2]}),
        (lambda **k: layers.SpectralConv1D(2, 2, **k), {"filters": ["x"]}),
        (lambda **k: bounds.LayerwiseSmoothness([], [], **k), {"norm": [-INF]}),
    ],
)
def test_refused(thing, options):
    for name, values in options.items():
        for value in values:
            with pytest.raises((ValueError, TypeError), match=name):
                thing(**{name: value})


def test_numbers_of_numpy_are_taken_and_saved(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            layers.SpectralRNN(
                np.int64(2),
                reflectors=np.array([1, 2]),
                sigma_center=np.float32(1),
                sigma_radius=np.float16(0.5),
                return_sequences=np.bool_(True),
            ),
            layers.SpectralLSTM(np.int32(2), dropout=np.float32(0.5)),
            layers.SpectralDense(np.array(2), use_bias=np.bool_(False)),
        ]
    )
    optimizer = optimizers.DSGD(
        learning_rate=np.float32(1),
        norm=np.inf,
        smoothness=bounds.LayerwiseSmoothness.from_variables(
            model.trainable_variables, np.inf
        ),
        norm_refresh=np.int64(2),
    )
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.ones((2, 3, 2), "float32")
    actual, expected = map(keras.ops.convert_to_numpy, (loaded(x), model(x)))
    np.testing.assert_array_equal(actual, expected)
    assert loaded.optimizer.norm == "inf"
    assert loaded.optimizer.norm_refresh == 2


def test_norms_are_followed_where_no_bound_needs_them():
    """One layer has none: there was `None` in the place of the norms."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    record = bounds.LayerwiseSmoothness.from_model(model, loss=loss)
    model.compile(optimizers.DSGD(smoothness=record, norm_refresh=2), loss)
    history = model.fit(np.eye(2), np.eye(2), epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
