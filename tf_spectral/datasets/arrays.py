"""Arrays of files that may be damaged, and room for them in memory."""

import math
import struct
import zipfile
import zlib

from numpy.lib import format as npy

# Of all arrays that are made at a time.
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


def check_room(what, *shapes):
    """Raises if arrays of `float32` would be too large to be made.

    Args:
        what: String, the file or the arguments that ask for them.
        *shapes: Tuples of integers.

    Raises:
        ValueError: If they need more than `MOST_BYTES`.

    Example:

    >>> from tf_spectral.datasets.arrays import check_room
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

    Nothing is taken for granted: no more memory is used than the file itself
    accounts for, whatever its headers say, and nothing in it is run.

    Args:
        path: A `pathlib.Path`.

    Attributes:
        names: Sorted list of strings.

    Raises:
        ValueError: If the file is none of `numpy.savez`: the file is named.

    Example:

    >>> import io
    >>> import numpy as np
    >>> from tf_spectral.datasets.arrays import ArrayFile
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
