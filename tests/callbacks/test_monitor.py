"""Monitors: what is measured when a training goes on, names of weights."""

import keras
import numpy as np
import pytest
from keras import layers

from tf_spectral.callbacks.monitor import EpochMonitor
from tf_spectral.callbacks.monitor import short_names

pytestmark = pytest.mark.usefixtures("eager")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 1))
EPOCHS = 7


class Weights(EpochMonitor):
    """Measures the sum of all weights, which every epoch changes."""

    def __init__(self, every=1):
        super().__init__(every)
        self.measured = []

    def measure(self, epoch):
        total = sum(float(np.sum(w)) for w in self.model.get_weights())
        self.measured.append((epoch, total))
        return {"weights": total}


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def compiled_model():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def fit(model, *callbacks, **options):
    return model.fit(
        X,
        Y,
        epochs=EPOCHS,
        shuffle=False,
        callbacks=list(callbacks),
        verbose=0,
        **options,
    ).history


@pytest.mark.parametrize("every", (1, 2, 10))
@pytest.mark.parametrize("start", (0, 2, 3))
@pytest.mark.costly(keep=3)
def test_epochs_count_from_the_first_of_all(start, every):
    monitor = Weights(every)
    logs = fit(compiled_model(), monitor, initial_epoch=start)["weights"]
    measured = dict(monitor.measured)
    expected = [e for e in range(start, EPOCHS) if (e + 1) % every == 0]
    assert list(measured) == [start - 1, *expected]
    for epoch, value in enumerate(logs, start):
        last = max(e for e in measured if e <= epoch)
        assert value == measured[last]


@pytest.mark.usefixtures("compiled_functions")
def test_the_same_monitor_in_a_second_training_starts_no_more():
    monitor, model = Weights(2), compiled_model()
    fit(model, monitor)
    fit(model, monitor)
    epochs, _ = zip(*monitor.measured, strict=True)
    assert epochs == (-1, 1, 3, 5, 1, 3, 5)


@pytest.mark.parametrize("killed", (2, 3))
def test_goes_on_from_a_backup_as_if_it_had_not_stopped(killed, tmp_path):
    """The weights that are restored are measured, not those before."""

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))

    model, every_epoch, whole = compiled_model(), Weights(), Weights(2)
    start = model.get_weights()
    fit(model, every_epoch, whole)
    model = compiled_model()
    model.set_weights(start)
    with pytest.raises(Killed):
        fit(model, Weights(2), backup(), Kill(killed))
    resumed = Weights(2)
    logs = fit(compiled_model(), resumed, backup())["weights"]
    assert len(logs) == EPOCHS - killed
    first, *rest = resumed.measured
    assert first == every_epoch.measured[killed]
    assert first[0] == killed - 1
    assert rest == [pair for pair in whole.measured if pair[0] >= killed]


def test_names_are_as_short_as_they_can_be_told_apart():
    paths = [("a", "b"), ("a", "c"), ("d", "e"), ("d", "e"), ("f",)]
    names = short_names(paths)
    assert names == ["a/b", "a/c", "d/e", "d/e_1", "f"]
    assert short_names(paths[3:], least=2) == ["d/e", "f"]
    # A number that a name has already is not given again.
    assert short_names([("a",), ("a",), ("a_1",)]) == ["a", "a_1", "a_1_1"]
