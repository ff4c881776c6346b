"""Files of unknown origin: only regular files are opened, and claimed sizes are checked before memory is taken."""

import math
import mmap
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mocme_jax.errors import UserError

MOST_AXES = 64
"""NumPy's own limit."""

_MOST = 1 << 62


class Damaged(Exception):
    """A file does not hold what it claims or should; the message says what, without the path."""


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading. Links are followed: people keep large files elsewhere.

    Raises:
      UserError: it is missing, unreadable, or a folder, pipe or device, which could keep a reader waiting for ever.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for someone to write to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: expected a file, found a folder, a pipe or a device; put a file in its place")
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, largest: int | None = None) -> bytes:
    """All bytes of a regular file.

    Raises:
      UserError: see open_file; or it is longer than ``largest``.
    """
    with open_file(path) as file:
        length = os.fstat(file.fileno()).st_size
        if largest is not None and length > largest:
            raise UserError(f"{path}: is {length:,} bytes long, but such a file may have at most {largest:,}")
        try:
            return file.read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def map_file(path: Path) -> mmap.mmap | bytes:
    """A regular file as bytes that are read when they are looked at; no bytes for an empty one, which can't be mapped.

    Raises:
      UserError: see open_file.
    """
    with open_file(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def whole_number(value: object, what: str = "a size") -> int:
    """``value`` if it can be a size, a place or an id; else Damaged is raised."""
    if type(value) is not int or not 0 <= value < _MOST:
        raise Damaged(f"{what} that is not a whole number in range")
    return value


def claimed_count(shape: Sequence[object], itemsize: int, held: int) -> int:
    """The number of elements of an array of this shape; Damaged if it needs more bytes than the file holds for it.

    Args:
      shape: as the file says.
      itemsize: bytes of an element.
      held: bytes that the file has for the array.
    """
    # Axes are counted before their product is taken: that of a million long numbers takes hours.
    if len(shape) > MOST_AXES:
        raise Damaged(f"an array of {len(shape):,} axes")
    sizes = [whole_number(size) for size in shape]
    if math.prod(max(size, 1) for size in sizes) * max(itemsize, 1) >= _MOST or math.prod(sizes) * itemsize > held:
        raise Damaged(f"an array of shape {str(sizes)[:60]}, for which the file contains {held:,} bytes")
    return math.prod(sizes)
