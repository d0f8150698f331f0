"""Files that are whole or as they were, whenever a process is killed."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def replaced(path):
    """Gives a temporary path to write to, and then renames it to `path`.

    Whoever reads the file finds what was there before or all that was
    written, never a part: also where the process is killed, the machine
    stops, or the disk is full.

    Args:
        path: Path of a file, there already or not, in a folder that exists.
            What a link leads to is replaced, not the link.

    Yields:
        A `pathlib.Path` in the same folder, of the same ending.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> import numpy as np
    >>> from tf_spectral.files import replaced
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "array.npy")
    ...     with replaced(path) as beside:
    ...         np.save(beside, np.ones(3))
    ...     np.load(path).tolist()
    [1.0, 1.0, 1.0]
    """
    path = pathlib.Path(os.path.realpath(path))
    beside = path.with_name(f".part-{path.name}")
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path, text):
    """Writes a text file as `replaced` does.

    Args:
        path: Path of the file.
        text: String.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.files import write_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "table.md")
    ...     write_text(path, "| set | accuracy |")
    ...     path.read_text()
    '| set | accuracy |'
    """
    with replaced(path) as beside:
        beside.write_text(text, encoding="utf-8")


def sync(path):
    """Waits until a file, or the list of a folder's files, is on the disk.

    Args:
        path: Path of a file or a folder.

    Example:

    >>> from tf_spectral.files import sync
    >>> sync(".")
    """
    if os.name != "posix" and os.path.isdir(path):
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cut_table(path, last=None):
    """Cuts a table of comma-separated values to its last whole row.

    A kill may leave half a row at the end of a file that grows row by row, or
    rows of work that has to be done again. A cut is one step of the file
    system.

    Args:
        path: Path of the file. Its first line is a header.
        last: Integer, the first cell of the last row that shall remain, or
            `None` to keep all that are whole. Defaults to `None`.

    Raises:
        ValueError: If there is no row that begins with `last`.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from tf_spectral.files import cut_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log.csv")
    ...     _ = path.write_text("epoch,loss\\n0,2.5\\n1,2.")
    ...     cut_table(path)
    ...     path.read_text()
    'epoch,loss\\n0,2.5\\n'
    """
    with open(path, "rb+") as file:
        end = found = 0
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            if last is not None and number and _first_cell(line) == last:
                found = end
        if last is not None and not found:
            raise ValueError(
                f"{path}: expected a row that begins with {last}, which was "
                "written before. Received: none"
            )
        file.truncate(end if last is None else found)
        file.flush()
        os.fsync(file.fileno())


def _first_cell(line):
    cell = line.split(b",", 1)[0].strip()
    return int(cell) if cell.isdigit() else None
