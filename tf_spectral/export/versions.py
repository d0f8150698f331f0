"""Folders of numbered versions, the layout of TensorFlow Serving."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
import time

from tf_spectral import checks
from tf_spectral import files

# Hidden: TensorFlow Serving takes it for no version, and we for no other file.
BESIDE = ".export-"
# Seconds. An export takes minutes: one that is older was killed.
STALE = 24 * 3600
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def model_folder(path):
    """Checks that a path can be the folder of one model.

    Args:
        path: Path of a folder with nothing but versions in it, or of none.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If `path` is no path, a file, a link that leads nowhere,
            no local folder, or has other things than versions in it.
    """
    path = pathlib.Path(checks.local_path("path", path))
    try:
        nearest = next(p for p in (path, *path.parents) if _is_there(p))
        is_folder = nearest.is_dir()
        there = is_folder and path.exists()
        entries = list(path.iterdir()) if there else []
    except (OSError, ValueError) as error:
        raise ValueError(
            "Argument `path` must be a folder. Received: "
            f"path={str(path)!r} ({error})"
        ) from None
    if not is_folder:
        what = "a link that leads nowhere" if nearest.is_symlink() else "a file"
        raise ValueError(
            f"Argument `path` must be a folder. Received: path={path}, where "
            f"{nearest} is {what}"
        )
    foreign = [e.name for e in entries if not _is_version(e)]
    foreign = [name for name in foreign if not _is_ignored(name)]
    if foreign:
        raise ValueError(
            "Argument `path` must be the folder of one model. Expected "
            "nothing in it but folders with numbers below 2**63 as names, "
            f"Received: path={path} with {sorted(foreign)}"
        )
    return path


def check_version(path, version):
    """Checks that a version is free.

    Args:
        path: `pathlib.Path`, as of `model_folder`.
        version: Positive integer, or `None` for the next free one.

    Returns:
        `version`.

    Raises:
        ValueError: If `version` is no positive integer below `2**63`, or
            exists.
    """
    if version is None:
        next_version(path)
        return None
    version = checks.integer("version", version, minimum=1)
    taken = _versions(path)
    if version in taken:
        raise ValueError(
            f"Argument `version` exists already. Expected none of "
            f"{sorted(taken)}, Received: version={version}"
        )
    return version


def next_version(path):
    """The number after the largest one.

    Args:
        path: `pathlib.Path`, as of `model_folder`.

    Raises:
        ValueError: If there is none.
    """
    version = max(_versions(path), default=0) + 1
    if version > checks.MOST:
        raise ValueError(
            "Argument `version` must be given: no number is left after "
            f"{checks.MOST}. Received: version=None"
        )
    return version


def _versions(path):
    entries = list(path.iterdir()) if path.exists() else []
    return {int(e.name) for e in entries if _is_number(e.name)}


def _is_version(entry):
    return _is_number(entry.name) and entry.is_dir()


def _is_number(name):
    return name.isascii() and name.isdigit() and int(name) <= checks.MOST


def _is_ignored(name):
    # What was left of exports, and what file systems keep at their root.
    return name.startswith(".") or name == "lost+found"


def _is_there(path):
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def write_version(path, version, write):
    """Makes a version, all of it at once.

    A server that watches the versions never sees half of one, and a failure
    leaves nothing. It is written inside `path`: a folder cannot be renamed
    from one file system to another. Of several processes that export at a
    time without a number, each gets one of its own.

    Args:
        path: `pathlib.Path`, as of `model_folder`.
        version: As of `check_version`.
        write: Function that makes the folder whose path it is given.

    Returns:
        A `pathlib.Path` of the version.

    Raises:
        ValueError: If another process made this version meanwhile.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    beside = _make_beside(path)
    try:
        written = os.path.join(beside, "version")
        write(written)
        for folder, _, names in os.walk(written):
            for name in (*names, "."):
                files.sync(os.path.join(folder, name))
        made = _publish(written, path, version)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        with contextlib.suppress(OSError):
            # As far as nothing else is in them.
            for folder in missing:
                folder.rmdir()
        raise
    os.rmdir(beside)
    files.sync(path)
    _remove_stale(path)
    return made


def _make_beside(path):
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            return tempfile.mkdtemp(prefix=BESIDE, dir=path)
        except FileNotFoundError:
            # Another process failed, and removed the folder that it had made.
            continue


def _publish(written, path, version):
    while True:
        number = next_version(path) if version is None else version
        folder = path / str(number)
        try:
            os.rename(written, folder)
            return folder
        except OSError as error:
            if error.errno not in TAKEN:
                raise
        if version is not None:
            raise ValueError(
                "Argument `version` exists already: it was made meanwhile. "
                f"Received: version={version}"
            )


def _remove_stale(path):
    now = time.time()
    for entry in path.glob(f"{BESIDE}*"):
        with contextlib.suppress(OSError):
            times = [p.stat().st_mtime for p in (entry, *entry.rglob("*"))]
            if max(times) < now - STALE:
                shutil.rmtree(entry, ignore_errors=True)
