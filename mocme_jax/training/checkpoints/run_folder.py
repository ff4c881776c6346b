"""The folder of a run: a lock that allows one training at a time, atomic writes, and messages for disk errors."""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mocme_jax.data.whole_files import flush_folder, make_folder, write_atomically
from mocme_jax.errors import UserError

LOCK = "lock"


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn the system's errors in a block that writes ``path``, such as a full disk, into a UserError."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | os.PathLike, error: Exception) -> UserError:
    """Make the UserError for a file that could not be written."""
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    if number := re.search(r"os_error_code='(\d+)'", str(error)):
        # Errors of TensorStore are a page long.
        reason = os.strerror(int(number[1]))
    return UserError(
        f"{path}: cannot be written ({reason[:200]}); earlier checkpoints are unchanged; free space there or correct "
        "its permissions and rerun the same command to resume, or name another folder with --workdir=DIR"
    )


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file of the run's folder atomically; see ``write_atomically``.

    Raises:
      UserError: the file cannot be written.
    """
    with writing(path):
        write_atomically(path, lambda file: file.write(content.encode() if isinstance(content, str) else content))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; see ``write_whole``."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append(path: Path, text: str) -> None:
    """Append text to a file of the run's folder; it is on disk when this returns.

    Raises:
      UserError: the file cannot be written.
    """
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        flush_folder(path.parent)


@contextlib.contextmanager
def locked(workdir: str | os.PathLike, lock: bool = True) -> Iterator[None]:
    """Create the folder, and keep other trainings out of it for the time of a ``with`` block.

    The kernel releases the lock when its process ends, however it ends. The lock file stays.

    Args:
      workdir: the folder.
      lock: False takes no lock, for file systems without locks.

    Raises:
      UserError: the folder cannot be created or written, is a file, is in use by another process, or the file system
        has no locks.
    """
    folder = Path(workdir).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder; name another with --workdir=FOLDER")
    with writing(folder):
        make_folder(folder)
        place = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            if lock:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another process is training there; wait until it ends, or name another folder with "
                "--workdir=DIR"
            ) from error
        except OSError as error:
            raise UserError(
                f"{folder / LOCK}: cannot be locked ({error.strerror}): this file system has no locks; make sure that "
                "no other process trains there and add --config.parallel.lock=false, or name another folder with "
                "--workdir=DIR"
            ) from error
        yield
    finally:
        os.close(place)
