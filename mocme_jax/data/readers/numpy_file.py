"""Arrays from ``.npy`` and ``.npz`` files.

Source of the format: numpy.lib.format of NumPy 2. Its own reader takes the memory that an archived header asks for,
and evaluates headers as Python literals; here a header is three fields and nothing else.
"""

import mmap
import re
from pathlib import Path

import numpy as np

from mocme_jax.data.readers.bounded_files import Damaged, claimed_count, map_file
from mocme_jax.data.readers.zip_archive import Archive
from mocme_jax.errors import UserError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_DIGITS = 18
# One field of the header's dict, which may stand in any order; old Pythons wrote 3L for 3.
_FIELD = re.compile(
    r"""\s*['"](?P<key>descr|fortran_order|shape)['"]\s*:\s*"""
    r"""(?:['"](?P<descr>[^'"\\]*)['"]|(?P<fortran_order>True|False)|\((?P<shape>[0-9L,\s]*)\))\s*(?:,\s*|$)"""
)
_TYPE = re.compile(r"[<>=|]?[?a-zA-Z][0-9]{0,9}")


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
                raise Damaged("an array is there twice")
            if len(members) > 1 and not members.keys() <= set(wanted):
                held, rest = ", ".join(sorted(members))[:200], " or ".join(wanted[1:])
                raise UserError(f"{path}: holds {held}; expected the array {wanted[0]}, with {rest}")
            return {key: _array(archive.read(name, compressed=True)) for key, name in members.items()}
    except Damaged as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Damaged) -> UserError:
    if isinstance(error, _Unfit):
        return UserError(f"{path}: holds {error}; save it as an array of numbers")
    return UserError(f"{path}: truncated or damaged ({error}); write it again")


def _array(data: mmap.mmap | bytes) -> np.ndarray:
    version = tuple(data[6:8])
    if data[:6] != _MAGIC or version not in ((1, 0), (2, 0), (3, 0)):
        raise Damaged("no NumPy file")
    start = 10 if version == (1, 0) else 12
    length = int.from_bytes(data[8:start], "little")
    if length > min(_LONGEST_HEADER, len(data) - start):
        raise Damaged("the header is longer than it can be")
    dtype, fortran_order, shape = _header(data[start : start + length].decode("latin-1"))
    begin = start + length
    count = claimed_count(shape, dtype.itemsize, len(data) - begin)
    if not count:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(data, dtype, count, begin)
    return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)


def _header(text: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    text = text.strip()
    if not text.startswith("{") or not text.endswith("}"):
        raise Damaged("a malformed header")
    fields: dict[str, str] = {}
    inside, place = text[1:-1].strip(), 0
    while place < len(inside):
        match = _FIELD.match(inside, place)
        if match is None or match[match["key"]] is None:
            if "[" in inside:
                raise _Unfit("records" if "O" not in inside else "Python objects")
            raise Damaged("a malformed header")
        fields[match["key"]], place = match[match["key"]], match.end()
    if len(fields) < 3:
        raise Damaged("a malformed header")
    sizes = [part.strip().removesuffix("L") for part in fields["shape"].split(",") if part.strip()]
    if not all(size.isdecimal() and len(size) <= _DIGITS for size in sizes):
        raise Damaged("a malformed shape")
    return _type(fields["descr"]), fields["fortran_order"] == "True", tuple(map(int, sizes))


def _type(descr: str) -> np.dtype:
    try:
        # A comma would make records of it.
        dtype = np.dtype(descr) if _TYPE.fullmatch(descr) else None
    except (TypeError, ValueError, OverflowError):
        dtype = None
    if dtype is None or not dtype.itemsize:
        raise Damaged(f"values of the unknown type {descr[:20]!r}")
    if dtype.hasobject:
        raise _Unfit("Python objects")
    return dtype
