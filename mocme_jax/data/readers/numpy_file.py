"""Arrays from ``.npy`` and ``.npz`` files.

NumPy parses the headers, of at most its own limit of 10,000 bytes; the rest of its reader would take the memory that an
archived header asks for.
"""

import io
import mmap
import warnings
from pathlib import Path

import numpy as np

from mocme_jax.data.readers.bounded_files import Damaged, claimed_count, map_file
from mocme_jax.data.readers.zip_archive import Archive
from mocme_jax.errors import UserError

_LONGEST_HEADER = 10_000
# Version 3 is version 2 for records whose fields have names outside of Latin-1.
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _Unfit(Damaged):
    """An array of something else than plain values; the message says of what."""


def read_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file, a read-only view of the mapped file.

    Raises:
      UserError: the file is missing, truncated, or holds anything but plain values.
    """
    try:
        return _array(map_file(path))
    except Damaged as error:
        raise _damaged(path, error) from None


def read_npz(path: Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name, read-only.

    Args:
      path: the archive.
      wanted: what its arrays may be called; a single one may have any name. If there are others nothing is read.

    Raises:
      UserError: the file is missing or truncated, a member claims more than it can hold, or is no plain array.
    """
    try:
        with Archive(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.names}
            if len(members) < len(archive.names):
                raise Damaged("an array is stored twice")
            if len(members) > 1 and not members.keys() <= set(wanted):
                held, rest = ", ".join(sorted(members))[:200], " or ".join(wanted[1:])
                raise UserError(f"{path}: contains {held}; expected the array {wanted[0]}, with {rest}")
            return {key: _array(archive.read(name, compressed=True)) for key, name in members.items()}
    except Damaged as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Damaged) -> UserError:
    if isinstance(error, _Unfit):
        return UserError(f"{path}: contains {error}; save it as an array of numbers")
    return UserError(f"{path}: truncated or damaged ({error}); write it again")


def _array(data: mmap.mmap | bytes) -> np.ndarray:
    start = io.BytesIO(data[: 12 + _LONGEST_HEADER])
    try:
        read_header = _HEADERS[np.lib.format.read_magic(start)]
    except (ValueError, KeyError):
        raise Damaged("not a NumPy file") from None
    try:
        with warnings.catch_warnings():
            # Of headers that Python 2 wrote.
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = read_header(start, max_header_size=_LONGEST_HEADER)
    # What is no header may raise anything inside of Python's parser, and all of it means this.
    except Exception:
        raise Damaged("a malformed header") from None
    if dtype.hasobject:
        raise _Unfit("Python objects")
    if dtype.names is not None or dtype.subdtype is not None:
        raise _Unfit("records")
    if not dtype.itemsize:
        raise Damaged(f"values of the type {dtype}, which have no length")
    count = claimed_count(shape, dtype.itemsize, len(data) - start.tell())
    if not count:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(data, dtype, count, start.tell())
    return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
