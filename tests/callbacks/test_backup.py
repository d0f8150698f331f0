"""Backup: what is killed goes on as if it had not been."""

import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from tests.helpers import BACKEND
from tf_spectral import files
from tf_spectral.callbacks import Backup
from tf_spectral.callbacks.backup import load_state
from tf_spectral.callbacks.backup import save_state
from tf_spectral.callbacks.backup import saved_states
from tf_spectral.layers import SpectralDense

pytestmark = pytest.mark.usefixtures("eager")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


class Killed(BaseException):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def compiled(seed=0, units=4, dtype=None, **options):
    """With dropout, whose random numbers Keras' own backup forgets."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            SpectralDense(units, "tanh", reflectors=1, dtype=dtype),
            # PyTorch draws from a generator of its own.
            keras.layers.Dropout(0.5 if BACKEND != "torch" else 0.0),
            keras.layers.Dense(1, dtype=dtype),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05, **options), "mse")
    return model


def fit(model, epochs, *callbacks):
    return model.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    ).epoch


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [ops.convert_to_numpy(v) for v in variables]


def assert_same(model, other):
    for a, b in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_ema": True, "ema_momentum": 0.5, "dtype": "mixed_bfloat16"},
    ],
)
@pytest.mark.usefixtures("compiled_functions")
@pytest.mark.slow
def test_a_killed_training_ends_as_if_it_had_not(options, tmp_path):
    whole = compiled(**options)
    fit(whole, 5)
    for killed in (0, 3):
        with pytest.raises(Killed):
            fit(compiled(**options), 5, Kill(killed), Backup(tmp_path))
    # A new process may start from other weights.
    resumed = compiled(seed=7, **options)
    assert fit(resumed, 5, Backup(tmp_path)) == [3, 4]
    assert_same(resumed, whole)
    # What is done already is not done again.
    assert fit(compiled(seed=7, **options), 5, Backup(tmp_path)) == []
    assert saved_states(tmp_path) == [4, 5]


def test_states_are_saved_every_k_epochs_and_last(tmp_path):
    model = compiled()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(
            model, "stop_training", epoch == 10
        )
    )
    backup = Backup(tmp_path, every=3)
    for epochs, there in ((1, [0, 1]), (7, [6, 7]), (20, [9, 11])):
        fit(model, epochs, stop, backup)
        assert saved_states(tmp_path) == there
    # The next training knows nothing of this one.
    assert fit(model, 2) == [0, 1]
    model = compiled(seed=3)
    assert backup.restore(model) == 11
    assert backup.restore(model, 9) == 9
    assert int(model.optimizer.iterations) == 18
    assert Backup(str(tmp_path), every=np.int64(2)).every == 2
    for folder, kind in (("", "a path"), ("gs://bucket/run", "a local path")):
        with pytest.raises(ValueError, match=f"`folder` must be {kind}"):
            Backup(folder)
    for every in (0, True, 1.5, "x"):
        with pytest.raises(ValueError, match="`every` must be a positive"):
            Backup(tmp_path, every=every)


def variables():
    return [
        keras.Variable(np.zeros((2, 3)), dtype="float32"),
        keras.Variable(0, dtype="int64", trainable=False),
        keras.Variable(np.zeros(3), dtype="bfloat16"),
    ]


def value(step, i):
    return step + (i / 2 if i != 1 else 0)


def train(folder, steps, state):
    """A training of which nothing but the saving takes time."""
    done = load_state(folder, state)
    for step in range(done + 1, steps + 1):
        for i, variable in enumerate(state):
            variable.assign(np.full(variable.shape, value(step, i)))
        save_state(folder, step, state, lambda steps: steps[-2:])
    return done


def check(state, step):
    for i, variable in enumerate(state):
        array = ops.convert_to_numpy(variable).astype("float64")
        np.testing.assert_array_equal(array, value(step, i))


def test_a_kill_at_any_step_of_a_save_loses_that_save_at_most(
    tmp_path, monkeypatch
):
    savez, sync, unlink = np.savez, files.sync, pathlib.Path.unlink

    def counted(function, before=lambda *args: None):
        def step(*args, **kwargs):
            nonlocal steps
            steps -= 1
            if steps == 0:
                before(*args)
                raise Killed
            return function(*args, **kwargs)

        return step

    def write_half(path, *_):
        pathlib.Path(path).write_bytes(b"PK\3\4 half of a file")

    def remove(path, **_):
        # A process that is killed does not clean up.
        if "part" not in path.name:
            unlink(path)

    monkeypatch.setattr(np, "savez", counted(savez, write_half))
    monkeypatch.setattr(files, "sync", counted(sync))
    monkeypatch.setattr(pathlib.Path, "unlink", counted(remove))
    for kill in range(1, 100):
        folder, steps = tmp_path / str(kill), kill
        try:
            train(folder, 4, variables())
            break
        except Killed:
            done = max(saved_states(folder), default=0)
        steps = 1000
        state = variables()
        assert train(folder, 4, state) == done
        check(state, 4)
        assert saved_states(folder)[-2:] == [3, 4]
    # Four files, each written, made sure of twice; two removed.
    assert kill == 4 * 3 + 2 + 1


def test_a_damaged_file_is_passed_over(tmp_path):
    train(tmp_path, 3, variables())
    newest, before = (tmp_path / f"epoch-00000{i}.npz" for i in (3, 2))
    content = newest.read_bytes()
    place = content.index(b"\x93NUMPY") + 130
    flipped = bytearray(content)
    flipped[place] ^= 1
    for damaged in (b"", content[:-100], content[:40], b"x" * 900, flipped):
        newest.write_bytes(damaged)
        state = variables()
        with pytest.warns(UserWarning, match="epoch-000003.npz cannot be read"):
            assert load_state(tmp_path, state) == 2
        check(state, 2)
    before.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of"):
        load_state(tmp_path, variables())


def test_the_state_of_another_model_is_refused(tmp_path):
    fit(compiled(), 1, Backup(tmp_path))
    other = compiled(units=5)
    before = state(other)
    with pytest.raises(ValueError, match="state of this model"):
        fit(other, 1, Backup(tmp_path))
    for a, b in zip(state(other)[: len(before)], before):
        np.testing.assert_array_equal(a, b)
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must be built"):
        Backup(tmp_path).restore(unbuilt)


def test_a_full_disk_leaves_the_states_before(tmp_path, monkeypatch):
    train(tmp_path, 2, variables())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            train(tmp_path, 3, variables())
    assert train(tmp_path, 3, variables()) == 2
