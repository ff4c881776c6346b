"""Files that are whole or not there: written beside their place under a name that nobody knows, then renamed."""

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that nobody meets half of it, and a kill or a power cut leaves the old one or the new one.

    A link at its place is replaced by the file; what it leads to is left alone.

    Args:
      path: of the file; folders that lack are made.
      write: writes the content.

    Raises:
      OSError: the folder can't be made or written; nothing is left behind.
    """
    make_folder(path.parent)
    # Made anew, under a name by chance: nobody can have put a link there.
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; this is an ordinary one.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    flush_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it that lack; their names are on the disk when this returns.

    Raises:
      OSError: it can't be made, or is a file.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def flush_tree(folder: Path) -> None:
    """Returns once a folder is on the disk with all that is in it, whoever wrote it.

    Raises:
      OSError: the disk refuses something of it.
    """
    for place, _, files in os.walk(folder):
        for name in files:
            flush_folder(Path(place, name))
        flush_folder(Path(place))


def flush_folder(folder: Path) -> None:
    """Returns once the names in a folder are on the disk: a new file's, which comes after its content, or a removal."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def taken(place: int) -> bool:
    """Whether another process holds the lock of an open file or folder; if not, this one does until it is closed.

    Some network file systems have no locks. A single writer needs none, so there it is nobody's.
    """
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
