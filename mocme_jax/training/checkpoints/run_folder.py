"""The run's folder: one training at a time in it, files whole or not at all, the disk's errors in a line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mocme_jax.data.whole_files import make_folder, write_atomically
from mocme_jax.errors import UserError

LOCK = "lock"


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """A block that writes ``path``; what the system refuses, as a full disk does, is raised as a UserError."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | os.PathLike, error: Exception) -> UserError:
    """What to tell of a file that could not be written."""
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    if number := re.search(r"os_error_code='(\d+)'", str(error)):
        # TensorStore's errors are a page long.
        reason = os.strerror(int(number[1]))
    return UserError(
        f"{path}: can't be written ({reason[:200]}); what was saved before is untouched; make room there or mend its "
        "permissions, and the same command goes on, or name another folder with --workdir=DIR"
    )


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file of the run's folder, see ``write_atomically``; an error of the disk is a UserError."""
    with writing(path):
        write_atomically(path, lambda file: file.write(content.encode() if isinstance(content, str) else content))


def write_json(path: Path, value: Any) -> None:
    """Writes a value that JSON can hold; see ``write_whole``."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextlib.contextmanager
def locked(workdir: str | os.PathLike, lock: bool = True) -> Iterator[None]:
    """Makes the folder and keeps other trainings out of it, for the time of a block.

    The kernel releases the lock with its holder, however that ends; the file stays.

    Args:
      workdir: the folder.
      lock: False keeps nobody out, where the file system has no locks.

    Raises:
      UserError: the folder can't be made or written, is a file, another process trains in it, or the file system has
        no locks.
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
                f"{folder}: another process is training there; wait for its end, or name another folder with "
                "--workdir=DIR"
            ) from error
        except OSError as error:
            raise UserError(
                f"{folder / LOCK}: can't be locked ({error.strerror}): this file system has no locks; see to it that "
                "no other process trains there and add --config.parallel.lock=false, or name another folder with "
                "--workdir=DIR"
            ) from error
        yield
    finally:
        os.close(place)
