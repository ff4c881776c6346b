"""Members of zip archives of unknown origin, read into memory within bounds; their names are never used as paths."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from mocme_jax.data.readers.bounded_files import Damaged, open_file

LONGEST_DIRECTORY = 1 << 21
"""Bytes of the list of members; some 25,000 of them. Parsed, it takes 10 times as much memory."""

INFLATED = 1 << 26
"""Bytes that any compressed member may hold, ..."""

RATIO = 100
"""... and times its compressed length that a longer one may. Dense numbers shrink to a half; 1,000 is zeros alone."""

_FAULTS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ValueError, OverflowError, EOFError),
    *(RuntimeError, NotImplementedError, OSError),
)


class Archive:
    """An open zip archive; a context manager.

    Raises:
      UserError: the file is missing or unreadable.
      Damaged: it is no zip archive, has too many members, or has one twice.
    """

    def __init__(self, path: Path):
        self._file = _Bounded(open_file(path))
        try:
            self._file.most = LONGEST_DIRECTORY
            self._zip = zipfile.ZipFile(self._file)
            self._file.most = self._file.length
            infos = self._zip.infolist()
            self._members = {info.filename: info for info in infos}
            if len(self._members) < len(infos):
                raise Damaged("a member is stored twice")
        except _FAULTS as error:
            self._file.close()
            raise Damaged(str(error)[:120]) from None
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> list[str]:
        """Names of the members."""
        return list(self._members)

    def read(self, name: str, *, largest: int | None = None, compressed: bool = False) -> bytes:
        """The bytes of a member, its checksum verified.

        Args:
          name: as in ``names``.
          largest: the most bytes that it should have; None for as many as the archive is long.
          compressed: whether it may be compressed (with deflate, which alone can be stopped in time).

        Raises:
          Damaged: there is no such member, it is longer, or its size or checksum is not what the archive says.
        """
        info = self._members.get(name)
        if info is None:
            raise Damaged(f"no member {name[:60]}")
        packed, size = info.compress_size, info.file_size
        stored = info.compress_type == zipfile.ZIP_STORED
        if not stored and not (compressed and info.compress_type == zipfile.ZIP_DEFLATED):
            raise Damaged(f"member {name[:60]} uses an unsupported compression")
        if (largest is not None and size > largest) or packed > self._file.length or (stored and packed != size):
            raise Damaged(f"member {name[:60]} claims {size:,} bytes, more than it can have")
        if size > max(INFLATED, RATIO * packed):
            raise Damaged(
                f"member {name[:60]} claims {size:,} bytes from {packed:,} compressed bytes; write it uncompressed"
            )
        try:
            with self._zip.open(info) as member:
                # Not read(): that inflates up to 2 GiB at a time, whatever the size that was promised.
                data = member.read(size) if size else b""
                if len(data) < size or member.read(1):
                    raise Damaged(f"member {name[:60]} has another length than the archive says")
                return data
        except _FAULTS as error:
            raise Damaged(f"member {name[:60]}: {str(error)[:120]}") from None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: Any) -> None:
        self._zip.close()
        self._file.close()


class _Bounded(io.BufferedReader):
    """A file that no read asks for more than it holds (memory is taken before), nor for more than ``most`` bytes."""

    def __init__(self, file: io.BufferedReader):
        super().__init__(file.detach())
        self.length = os.fstat(self.fileno()).st_size
        self.most = self.length

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.length - self.tell())
        size = left if size is None or size < 0 else min(size, left)
        if size > self.most:
            raise Damaged(f"its list of members is {size:,} bytes long")
        return super().read(size)
