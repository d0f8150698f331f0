"""Folders of numbered versions, the layout of TensorFlow Serving."""

import contextlib
import os
import pathlib
import tempfile


def version_folder(path, version=None):
    """The folder `path/<version>`, not made yet.

    Args:
        path: Path of a folder with nothing but versions in it, or of none.
        version: Positive integer, or `None` for the next free one. Defaults
            to `None`.

    Raises:
        ValueError: If `path` is a file or has other things in it, if the
            version is no positive integer or exists.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"Argument `path` must be a folder. Received: path={path}, a file"
        )
    entries = list(path.iterdir()) if path.exists() else []
    foreign = [e.name for e in entries if not _is_version(e)]
    if foreign:
        raise ValueError(
            "Argument `path` must be the folder of one model. Expected "
            "nothing in it but folders with numbers as names, Received: "
            f"path={path} with {sorted(foreign)}"
        )
    taken = {int(e.name) for e in entries}
    if version is None:
        version = max(taken, default=0) + 1
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(
            "Argument `version` must be a positive integer or None. "
            f"Received: version={version}"
        )
    if version in taken:
        raise ValueError(
            f"Argument `version` exists already. Expected none of "
            f"{sorted(taken)}, Received: version={version}"
        )
    return path / str(version)


def _is_version(entry):
    return entry.is_dir() and entry.name.isascii() and entry.name.isdigit()


@contextlib.contextmanager
def complete_or_absent(folder):
    """Gives a path beside to write to, which then becomes the folder.

    A server that watches the versions never sees half of one, and a failure
    leaves nothing.

    Args:
        folder: `pathlib.Path` of a version that does not exist.
    """
    path = folder.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}-", dir=path.parent
    ) as beside:
        written = os.path.join(beside, folder.name)
        yield written
        path.mkdir(exist_ok=True)
        os.rename(written, folder)
