"""The files of checkpoints, looked at before any is opened: what they are, how many, and how long.

TensorStore and Orbax open whatever has the right name. A pipe would keep them waiting for ever, a device or a sparse
file would fill the memory, and a few bytes can stand for an array of any size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mocme_jax.errors import UserError

MOST_FILES = 200_000
"""In one folder of checkpoints. A process writes about 20 in each."""

DEEPEST = 8
"""Folders inside each other. Orbax makes five."""

LARGEST_TEXT = 1 << 22
"""Bytes of a file that holds no array."""

SPARE = 1 << 26
"""Bytes: what the arrays' files may hold beside the arrays, and what arrays may take whatever their files hold."""

SMALLEST_SHARE = 100
"""Arrays take at most so many times the bytes of their files, beyond ``SPARE``: much of a new state is zeros."""

# Folders of the files that hold arrays; a checkpoint that is being written has them under another name.
_OF_ARRAYS = "d"


class Unreadable(Exception):
    """A checkpoint can't be read, or is not what it was when it was saved; the message is one line and says why."""


def check_kinds(folder: Path) -> None:
    """Passes where a folder of checkpoints holds nothing but files and folders, as many and as deep as a run makes.

    Raises:
      UserError: it does not, is no folder itself, or can't be looked at; nothing was opened.
    """
    if not folder.is_dir() or folder.is_symlink():
        kind = "a link" if folder.is_symlink() else "no folder"
        raise UserError(f"{folder}: is {kind}, and holds checkpoints of a run; put the run's folder back, or remove it")
    count = 0
    for path, info, depth in _walk(folder):
        count += 1
        regular = stat.S_ISREG(info.st_mode)
        if not regular and not stat.S_ISDIR(info.st_mode):
            wrong = f"is {'a link' if stat.S_ISLNK(info.st_mode) else 'a pipe, a socket or a device'}, where a file"
        elif regular and depth == 1:
            wrong = "is a file, where a checkpoint's folder"
        elif regular and path.parent.name != _OF_ARRAYS and info.st_size > LARGEST_TEXT:
            wrong = f"is {info.st_size:,} bytes long, where a text of at most {LARGEST_TEXT:,}"
        elif depth > DEEPEST or count > MOST_FILES:
            wrong = f"is one of more than {MOST_FILES:,} files, or deeper than any file that"
        else:
            continue
        raise UserError(f"{path}: {wrong} is expected in checkpoints; {_cure(folder, path)}")


def _cure(folder: Path, path: Path) -> str:
    checkpoint = folder / path.relative_to(folder).parts[0]
    return f"put the run's own file back, or delete {checkpoint}: the checkpoint before it is used then"


def check_sizes(checkpoint: Path, arrays: int) -> None:
    """Passes where a checkpoint's files can hold arrays of so many bytes, and not much else.

    Raises:
      Unreadable: they are longer, or so short that they hold next to nothing.
    """
    held = sum(info.st_size for _, info, _ in _walk(checkpoint) if stat.S_ISREG(info.st_mode))
    if held > 2 * arrays + SPARE or arrays > SPARE + SMALLEST_SHARE * held:
        raise Unreadable(f"its files hold {held:,} bytes, and the arrays of its config take {arrays:,}")


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result, int]]:
    """What is in a folder, and how deep; links are not followed, and what goes away meanwhile is left out.

    Raises:
      UserError: a folder can't be looked at.
    """
    waiting = [(folder, 1)]
    while waiting:
        place, depth = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        # A training that goes on has deleted it.
                        continue
                    path = place / entry.name
                    yield path, info, depth
                    if stat.S_ISDIR(info.st_mode):
                        waiting.append((path, depth + 1))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{place}: can't be read ({error.strerror}); mend its permissions") from None
