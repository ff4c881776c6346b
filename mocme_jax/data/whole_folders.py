"""Files of one folder that belong together: all of one writing, or a file beside them says that they are not.

They are written into a folder of their own first. Only when all are on the disk are they moved to their places, in a
moment. Through that moment ``unfinished.txt`` names them, so that whoever reads them after a kill knows.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mocme_jax.data.readers.text_lines import read_lines
from mocme_jax.data.whole_files import flush_folder, make_folder, taken, write_atomically
from mocme_jax.errors import UserError

UNFINISHED = "unfinished.txt"
_STAGE = ".writing-"
_NAMED = 5


Content = bytes | Callable[[BinaryIO], object]
"""What a file holds, or what writes it."""


def write_together(folder: Path, files: Mapping[str, Content], gone: Collection[str] = ()) -> list[Path]:
    """Writes files so that a kill or a power cut leaves the old ones, the new ones, or their names in UNFINISHED.

    Args:
      folder: made where missing.
      files: contents by name. They get their places in this order.
      gone: names of files that do not belong to the new ones, and are removed first, in this order.

    Returns:
      The files written. They are on the disk, and so are their names.

    Raises:
      UserError: the folder can't be made or written, or another process is writing files of it.
    """
    folder = Path(folder)
    try:
        make_folder(folder)
        with _alone_in(folder), _stage(folder) as stage:
            for name, content in files.items():
                _write(stage / name, content)
            mine = {*files, *gone}
            doubted = mine | set(unfinished(folder))
            _doubt(folder, stage, doubted)
            for name in gone:
                (folder / name).unlink(missing_ok=True)
            for name in files:
                os.replace(stage / name, folder / name)
            flush_folder(folder)
            _doubt(folder, stage, doubted - mine)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return [folder / name for name in files]


def unfinished(folder: Path) -> list[str]:
    """Names of files of which some may be old, some new and some missing, because writing them was cut off.

    Raises:
      UserError: the file that lists them can't be read.
    """
    path = folder / UNFINISHED
    return read_lines(path) if os.path.lexists(path) else []


def refuse_unfinished(folder: Path, concerned: Callable[[str], bool]) -> None:
    """Raises a UserError if writing files of these names was cut off."""
    if names := [name for name in unfinished(folder) if concerned(name)]:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise UserError(
            f"{folder}: is incomplete, because the command that wrote {', '.join(names[:_NAMED])}{more} was "
            "interrupted; run it again"
        )


def _write(path: Path, content: Content) -> None:
    write_atomically(path, (lambda file: file.write(content)) if isinstance(content, bytes) else content)


def _doubt(folder: Path, stage: Path, names: Collection[str]) -> None:
    """Writes UNFINISHED, or removes it where there are no names."""
    if names:
        _write(stage / UNFINISHED, "".join(f"{name}\n" for name in sorted(names)).encode("utf-8", "surrogatepass"))
        os.replace(stage / UNFINISHED, folder / UNFINISHED)
    else:
        (folder / UNFINISHED).unlink()
    flush_folder(folder)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    place = os.open(folder, os.O_RDONLY)
    try:
        if taken(place):
            raise UserError(f"{folder}: another process is writing there; wait until it ends")
        yield
    finally:
        os.close(place)


@contextlib.contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    for left in folder.glob(f"{_STAGE}*"):
        # A killed command's: nobody else writes here now.
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
    stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=folder))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
