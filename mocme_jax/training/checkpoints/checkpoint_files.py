"""Checks of the files of checkpoints before any is opened: their kinds, number and sizes.

TensorStore and Orbax open any file with the right name. A pipe would block them, a device or a sparse file could fill
the memory, and a few bytes can stand for an array of any size.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from mocme_jax.errors import UserError
from mocme_jax.training.checkpoints.run_folder import writing

MOST_FILES = 200_000
"""The maximum number of files in a folder of checkpoints. A process writes about 20 per checkpoint."""

DEEPEST = 8
"""The maximum depth of nested folders. Orbax makes five."""

LARGEST_TEXT = 1 << 22
"""The maximum size in bytes of a file without arrays."""

SPARE = 1 << 26
"""Bytes that files of arrays may hold beyond the arrays, and that arrays may take whatever the size of their files."""

SMALLEST_SHARE = 100
"""The maximum ratio of the size of arrays to that of their files, beyond ``SPARE``. Much of a new state is zeros."""

# The parts of a checkpoint; a corrupt one has some of them.
_PARTS = ("meta", "state", "_CHECKPOINT_METADATA")
# The name of folders with array files. Checkpoints that are being written use another name.
_OF_ARRAYS = "d"


class Unreadable(Exception):
    """A checkpoint cannot be read, or has changed since it was saved. The message is one line with the reason."""


def check_kinds(folder: Path) -> None:
    """Check that a folder of checkpoints holds only files and folders, in numbers and depths that a run can make.

    Nothing is opened.

    Raises:
      UserError: it does not, is not a folder itself, or cannot be read.
    """
    if not folder.is_dir() or folder.is_symlink():
        kind = "a link" if folder.is_symlink() else "not a folder"
        raise UserError(f"{folder}: is {kind}, but should be a run's folder of checkpoints; restore or remove it")
    count = 0
    for path, info, depth in _walk(folder):
        count += 1
        regular = stat.S_ISREG(info.st_mode)
        if not regular and not stat.S_ISDIR(info.st_mode):
            wrong = (
                f"expected a file, found {'a link' if stat.S_ISLNK(info.st_mode) else 'a pipe, a socket or a device'}"
            )
        elif regular and depth == 1:
            wrong = "expected a checkpoint's folder, found a file"
        elif regular and path.parent.name != _OF_ARRAYS and info.st_size > LARGEST_TEXT:
            wrong = f"expected a text of at most {LARGEST_TEXT:,} bytes, found {info.st_size:,} bytes"
        elif depth > DEEPEST or count > MOST_FILES:
            wrong = f"one of more than {MOST_FILES:,} files, or deeper than any file of a checkpoint"
        else:
            continue
        raise UserError(f"{path}: {wrong}; {_cure(folder, path)}")


def _cure(folder: Path, path: Path) -> str:
    checkpoint = folder / path.relative_to(folder).parts[0]
    return f"restore the run's own file, or delete {checkpoint} to use the previous checkpoint"


def refuse_what_is_not_ours(places: Sequence[Path]) -> None:
    """Raise a UserError if opening these folders of checkpoints for writing could delete other files.

    Orbax treats every folder with a number as its name as a checkpoint, and deletes the oldest.
    """
    emptied: list[Path] = []
    for place in places:
        if place.is_symlink():
            raise UserError(f"{place}: is a link, but checkpoints are created and deleted there: remove the link")
        if not place.is_dir():
            continue
        for entry in sorted(place.iterdir()):
            if entry.name.isdigit() and not any((entry / part).exists() for part in _PARTS):
                if entry.is_dir() and not entry.is_symlink() and not any(entry.iterdir()):
                    emptied.append(entry)
                    continue
                raise UserError(
                    f"{entry}: is not a checkpoint of this program, but could be deleted as one; move it elsewhere, or "
                    "name another folder with --workdir=DIR"
                )
    # A kill at the end of a deletion leaves an empty folder.
    for entry in emptied:
        with writing(entry):
            entry.rmdir()


def check_sizes(checkpoint: Path, arrays: int) -> None:
    """Check that a checkpoint's files can hold arrays of this many bytes, and not much more.

    Raises:
      Unreadable: the files are larger, or so small that they hold almost nothing.
    """
    held = sum(info.st_size for _, info, _ in _walk(checkpoint) if stat.S_ISREG(info.st_mode))
    if held > 2 * arrays + SPARE or arrays > SPARE + SMALLEST_SHARE * held:
        raise Unreadable(f"its files contain {held:,} bytes, but the arrays of its config take {arrays:,}")


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result, int]]:
    """Yield the content of a folder with its depth. Links are not followed, and files that disappear are left out.

    Raises:
      UserError: a folder cannot be read.
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
                        # A running training has deleted it.
                        continue
                    path = place / entry.name
                    yield path, info, depth
                    if stat.S_ISDIR(info.st_mode):
                        waiting.append((path, depth + 1))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{place}: cannot be read ({error.strerror}); correct its permissions") from None
