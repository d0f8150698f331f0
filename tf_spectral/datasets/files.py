"""Files that the user has put into a folder: found, and read with care."""

import errno
import math
import os
import pathlib
import struct
import zipfile
import zlib

from numpy.lib import format as npy

from tf_spectral import checks

VARIABLE = "TF_SPECTRAL_DATA"
# Arrays that exist at the same time take no more.
MOST_BYTES = 2**34
# What zipfile and NumPy raise where a file is damaged, locked or not theirs.
DAMAGE = (
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def data_folder(subfolder, folder, advice, argument="folder"):
    """Finds the folder of a data set.

    Args:
        subfolder: Its name in the folder that the environment variable
            `TF_SPECTRAL_DATA` names.
        folder: The folder itself, or `None` to go by that variable.
        advice: Sentences for the message: what to download and where to put
            it.
        argument: What the caller calls `folder`. Defaults to `"folder"`.

    Returns:
        A `pathlib.Path` to an existing folder.

    Raises:
        ValueError: If there is no such folder.

    Example:

    >>> from tf_spectral.datasets.files import data_folder
    >>> data_folder("ptb", "no such folder", "Put the files there.")
    Traceback (most recent call last):
    ValueError: Argument `folder`... Expected the folder no such folder...
    """
    if folder is not None:
        path = to_path(argument, folder)
    elif os.environ.get(VARIABLE):
        path = to_path(VARIABLE, os.environ[VARIABLE]) / subfolder
    else:
        raise missing(f"the folder {subfolder}/", folder, advice, argument)
    if not _exists(path.is_dir):
        raise missing(f"the folder {path}", folder, advice, argument)
    return path


def to_path(argument, value):
    """A path that a caller passed, with `~` replaced by its folder.

    Args:
        argument: Name of the argument, for the message.
        value: What the caller passed.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If it is no path.

    Example:

    >>> from tf_spectral.datasets.files import to_path
    >>> to_path("folder", "data").name
    'data'
    """
    path = pathlib.Path(checks.path(argument, value))
    try:
        return path.expanduser()
    except RuntimeError:
        checks.refuse(argument, "be a path of a known user", value)


def check_name(name):
    """Checks that a name leads to nothing outside of its folder.

    Args:
        name: What the caller passed as name of a data set.

    Returns:
        The name.

    Raises:
        ValueError: If it is no string, or a path.

    Example:

    >>> from tf_spectral.datasets.files import check_name
    >>> check_name("CBF")
    'CBF'
    """
    is_name = isinstance(name, str) and name not in ("", ".", "..")
    if not is_name or set(name) & {"/", "\\", "\0"}:
        checks.refuse(
            "name", "be the name of a data set", name, "a name without slashes"
        )
    return name


def is_file(path):
    """Whether a file exists; one whose path is too long does not.

    Args:
        path: A `pathlib.Path`.

    Returns:
        Boolean.

    Example:

    >>> import pathlib
    >>> from tf_spectral.datasets.files import is_file
    >>> is_file(pathlib.Path("a" * 1000))
    False
    """
    return _exists(path.is_file)


def _exists(ask):
    try:
        return ask()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def find_files(names, subfolder, folder, advice, argument="folder"):
    """Finds the files of a data set.

    Args:
        names: Paths of the files inside the folder of the data set.
        subfolder: As in `data_folder`.
        folder: As in `data_folder`.
        advice: As in `data_folder`.
        argument: As in `data_folder`. Defaults to `"folder"`.

    Returns:
        A list with a `pathlib.Path` for each name.

    Raises:
        ValueError: If the folder or some of the files are absent; all of
            those are named.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.datasets.files import find_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "input.txt").touch()
    ...     paths = find_files(["input.txt"], "text", folder, "Put it there.")
    >>> paths[0].name
    'input.txt'
    """
    root = data_folder(subfolder, folder, advice, argument)
    paths = [root / name for name in names]
    absent = [str(path) for path in paths if not is_file(path)]
    if absent:
        raise missing(" and ".join(absent), folder, advice, argument)
    return paths


def missing(what, folder, advice, argument="folder"):
    """The error that says which data are absent and how to get them.

    Args:
        what: Name of the folder or the files that were looked for.
        folder: What the caller passed.
        advice: As in `data_folder`.
        argument: As in `data_folder`. Defaults to `"folder"`.

    Returns:
        A `ValueError`, to be raised.

    Example:

    >>> from tf_spectral.datasets.files import missing
    >>> raise missing("ptb.train.txt", "data", "Put it there.")
    Traceback (most recent call last):
    ValueError: Argument `folder`... Put it there. Received: folder='data'
    """
    received = f"{argument}={folder if folder is None else str(folder)!r}"
    if folder is None:
        received += f", {VARIABLE}={os.environ.get(VARIABLE)!r}"
    return ValueError(
        f"Argument `{argument}`, or where it is None the environment variable "
        f"{VARIABLE} and the name of the data set, must lead to the data; "
        f"nothing is downloaded. Expected {what}. {advice} "
        f"Received: {received}"
    )


def read_text(path):
    """Reads a text file, with every end of a line as a newline.

    Args:
        path: A `pathlib.Path`.

    Returns:
        A string.

    Raises:
        ValueError: If the file is not UTF-8.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.datasets.files import read_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "input.txt")
    ...     _ = path.write_text("First Citizen:")
    ...     read_text(path)[:5]
    'First'
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, Received: {error}"
        ) from error


def check_room(what, *shapes):
    """Raises if arrays of `float32` would be too large to be made.

    Args:
        what: String, the file or the arguments that ask for them.
        *shapes: Tuples of integers.

    Raises:
        ValueError: If they need more than `MOST_BYTES`.

    Example:

    >>> from tf_spectral.datasets.files import check_room
    >>> check_room("set_data.txt, line 1", (7395, 1836), (7395, 159))
    """
    needed = 4 * sum(math.prod(shape) for shape in shapes)
    if needed > MOST_BYTES:
        raise ValueError(
            f"{what}: expected arrays that fit into {MOST_BYTES} bytes, as "
            f"they are dense. Received: shapes {', '.join(map(str, shapes))}"
        )


class ArrayFile:
    """The arrays of a file of `numpy.savez`, read one by one.

    The file may be damaged or hostile: whatever its headers say, no more
    memory is used than the file itself accounts for, and no code in it runs.

    Args:
        path: A `pathlib.Path`.

    Attributes:
        names: Sorted list of strings.

    Raises:
        ValueError: If the file is none of `numpy.savez`: the file is named.

    Example:

    >>> import io
    >>> import numpy as np
    >>> from tf_spectral.datasets.files import ArrayFile
    >>> file = io.BytesIO()
    >>> np.savez(file, x=np.ones((2, 3)))
    >>> with ArrayFile(file) as arrays:
    ...     arrays.read("x").shape
    (2, 3)
    """

    def __init__(self, path):
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise ValueError(
                f"{path}: expected an .npz file of NumPy's savez, Received: "
                f"{error}"
            ) from error
        members = self._archive.namelist()
        self.names = sorted(name.removesuffix(".npy") for name in members)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._archive.close()

    def read(self, name):
        """An array of real numbers.

        Args:
            name: One of `names`.

        Raises:
            ValueError: If it is no array, damaged, of another kind of
                numbers, or too large.
        """
        try:
            info = self._archive.getinfo(f"{name}.npy")
            with self._archive.open(info) as file:
                shape, dtype = _header(file)
                self._check(name, shape, dtype, info.file_size - file.tell())
            with self._archive.open(info) as file:
                return npy.read_array(file, allow_pickle=False)
        except _Unfit as error:
            raise ValueError(f"{self.path}: {error}") from None
        except (*DAMAGE, MemoryError) as error:
            raise ValueError(
                f"{self.path}: expected {name} to be an array of NumPy's "
                f"savez, Received: {error}"
            ) from error

    def _check(self, name, shape, dtype, size):
        if dtype.kind not in "biuf":
            raise _Unfit(
                f"expected real numbers in {name}, Received: dtype {dtype}"
            )
        if math.prod(shape) * dtype.itemsize != size:
            raise _Unfit(
                f"expected {name} of the shape that its header declares, "
                f"{shape} of {dtype}, Received: {size} bytes"
            )
        if 4 * math.prod(shape) > MOST_BYTES:
            raise _Unfit(
                f"expected arrays that fit into {MOST_BYTES} bytes, Received: "
                f"{name} of shape {shape}"
            )


class _Unfit(Exception):
    """What is wrong with an array that is not damaged."""


def _header(file):
    version = npy.read_magic(file)
    readers = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }
    if version not in readers:
        raise _Unfit(f"expected an array of plain numbers, Received: {version}")
    shape, _, dtype = readers[version](file)
    return shape, dtype
