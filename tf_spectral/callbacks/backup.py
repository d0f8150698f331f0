"""Backup: a training that is killed goes on as if it had not been."""

import pathlib
import re
import warnings
import zipfile
import zlib

import numpy as np
from keras import callbacks
from keras import ops

from tf_spectral import checks
from tf_spectral import files
from tf_spectral.backend.keras_internals import start_at

NAME = re.compile(r"epoch-(\d+)\.npz")
# What reading a damaged file raises. A killed process leaves no such file.
DAMAGE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)
DAMAGE += (zlib.error,)


class Backup(callbacks.Callback):
    """Saves the state of a training, from which the next one goes on.

    `keras.callbacks.BackupAndRestore` writes over its only file, and the
    number of the epoch into another: a process that is killed meanwhile
    leaves what cannot be read, or weights of one epoch with the number of
    another. Here a state is one file, which gets its name when it is whole,
    and the last two remain. It holds weights, the optimizer's variables, and
    the random numbers' state of `Dropout` and other layers, which Keras does
    not save: on a CPU the result is bit for bit that of a training without
    a stop, if the data of an epoch are a function of its number. (On PyTorch
    Keras draws dropout from a generator that is not saved.) See "Failure and
    recovery" in the documentation.

    When training begins, the newest state is restored, and `fit` starts at
    the epoch that follows. The first state is written before the first epoch.
    Put the callback last: what the others did in an epoch that is saved is
    done.

    Args:
        folder: Path of a folder for the files of one training, made if there
            is none.
        every: Positive integer `k`: save after every k-th epoch and after the
            last one. Defaults to `1`.

    Raises:
        ValueError: If `folder` is no local path or `every` no positive integer;
            when training begins, if the model is not built, or if the state
            is of another model.

    Example:

    >>> import tempfile
    >>> import keras
    >>> import numpy as np
    >>> from tf_spectral.callbacks import Backup
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 3)), np.ones((8, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for epochs in (2, 5):
    ...         history = model.fit(
    ...             x, y, epochs=epochs, callbacks=[Backup(folder)], verbose=0
    ...         )
    >>> history.epoch
    [2, 3, 4]
    """

    def __init__(self, folder, every=1):
        super().__init__()
        self.folder = pathlib.Path(checks.local_path("folder", folder))
        self.every = checks.integer("every", every, minimum=1)

    def restore(self, model, epoch=None):
        """Sets a model and its optimizer to a state.

        `fit` does it. To know before how much is done, call it yourself.

        Args:
            model: Compiled and built Keras model.
            epoch: Integer, the number of epochs after which the state was
                saved. `None` for the newest; if there is none, that of the
                model is saved as the first one. Defaults to `None`.

        Returns:
            The number of epochs that are done.
        """
        variables = _variables_of(model)
        if epoch is None and not saved_states(self.folder):
            save_state(self.folder, 0, variables, self.kept)
        return load_state(self.folder, variables, epoch)

    def kept(self, epochs):
        """Which states remain.

        Args:
            epochs: List of integers, the states there are, oldest first.

        Returns:
            Iterable of integers. The last two, if not overridden.
        """
        return epochs[-2:]

    def on_train_begin(self, logs=None):
        # As Keras' own callback tells `fit` where to begin.
        start_at(self.model, self.restore(self.model) or None)

    def on_epoch_begin(self, epoch, logs=None):
        # A later `fit` without this callback starts at its own epoch.
        start_at(self.model, None)

    def on_epoch_end(self, epoch, logs=None):
        # Not in `on_train_end`: by then Keras has overwritten the weights by
        # their averages.
        is_last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if is_last or (epoch + 1) % self.every == 0:
            variables = _variables_of(self.model)
            save_state(self.folder, epoch + 1, variables, self.kept)

    def on_train_end(self, logs=None):
        start_at(self.model, None)


def saved_states(folder):
    """The numbers of the states in a folder.

    Args:
        folder: Path of a folder, which need not exist.

    Returns:
        Sorted list of integers.

    Example:

    >>> from tf_spectral.callbacks.backup import saved_states
    >>> saved_states("no such folder")
    []
    """
    folder = pathlib.Path(folder)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(m[1]) for m in map(NAME.fullmatch, names) if m)


def save_state(folder, done, variables, kept):
    """Writes the state of a training, and removes old ones.

    Args:
        folder: Path of a folder, made if there is none.
        done: Non-negative integer, the number of the state.
        variables: List of Keras variables.
        kept: Function of the sorted list of numbers that are there: those
            which remain.

    Example:

    >>> import tempfile
    >>> import keras
    >>> from tf_spectral.callbacks.backup import save_state
    >>> from tf_spectral.callbacks.backup import saved_states
    >>> weight = keras.Variable([1.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for done in range(4):
    ...         save_state(folder, done, [weight], lambda all: all[-2:])
    ...     saved_states(folder)
    [2, 3]
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{i:06}": ops.convert_to_numpy(v) for i, v in enumerate(variables)
    }
    with files.replaced(_path(folder, done)) as beside:
        np.savez(beside, **arrays)
    there = saved_states(folder)
    for number in set(there) - {*kept(there), done}:
        _path(folder, number).unlink()


def load_state(folder, variables, number=None):
    """Reads the state of a training, or the one before if it is damaged.

    Args:
        folder: Path of a folder, which need not exist.
        variables: List of the Keras variables that were saved.
        number: Which state to read. `None` for the newest that can be read.
            Defaults to `None`.

    Returns:
        The number of the state; 0 if there is none.

    Raises:
        ValueError: If it is the state of other variables, or none of several
            files can be read. Nothing is changed then.

    Example:

    >>> import tempfile
    >>> import keras
    >>> from tf_spectral.callbacks.backup import load_state
    >>> from tf_spectral.callbacks.backup import save_state
    >>> weight = keras.Variable([1.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(folder, 3, [weight], lambda all: all[-2:])
    ...     _ = weight.assign([2.0])
    ...     load_state(folder, [weight])
    3
    >>> float(weight.value[0])
    1.0
    """
    numbers = saved_states(folder) if number is None else [number]
    for done in reversed(numbers):
        path = _path(folder, done)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[name] for name in sorted(file.files)]
        except DAMAGE as error:
            warnings.warn(
                f"{path} cannot be read ({error}).",
                stacklevel=3,
            )
            continue
        _assign(path, arrays, variables)
        return done
    if numbers:
        raise ValueError(
            f"{folder}: expected the state of a training. Received: files "
            "none of which can be read. Remove the folder to start anew"
        )
    return 0


def _path(folder, number):
    return pathlib.Path(folder) / f"epoch-{number:06}.npz"


def _assign(path, arrays, variables):
    shapes = [array.shape for array in arrays]
    expected = [tuple(v.shape) for v in variables]
    if shapes != expected:
        raise ValueError(
            f"{path}: expected the state of this model and its optimizer, "
            f"{len(expected)} variables of shapes {expected}. Received: "
            f"{len(shapes)} of shapes {shapes}"
        )
    for array, variable in zip(arrays, variables):
        if array.dtype.kind == "V":
            # NumPy writes bfloat16 as mere bytes.
            array = array.view(ops.convert_to_numpy(variable).dtype)
        variable.assign(array)


def _variables_of(model):
    if not model.built:
        raise ValueError(
            "The model must be built before it is restored or saved. Expected "
            "an Input layer or a call on a batch, Received: a model that is "
            f"not built: {model}"
        )
    optimizer = model.optimizer
    if optimizer is None:
        return model.variables
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    return [*model.variables, *optimizer.variables]
