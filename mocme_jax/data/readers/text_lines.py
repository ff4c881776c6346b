"""Lines of a UTF-8 text file, with errors a user can act on."""

import gzip
import io
import math
import re
import zlib
from pathlib import Path

from mocme_jax.data.readers.bounded_files import read_file
from mocme_jax.data.readers.zip_archive import INFLATED, RATIO
from mocme_jax.errors import UserError

DIGITS = 18
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without line ends, a byte-order mark or blank lines at the end.

    Only line feeds end a line: names may hold other Unicode separators. A file called ``.gz`` is decompressed.

    Raises:
      UserError: the file is missing, unreadable, not UTF-8, or holds a zero byte, as no text does.
    """
    data = _decompressed(path) if path.suffix == ".gz" else read_file(path)
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        raise UserError(f"{path}:{line}: contains a zero byte, so it is damaged or not UTF-8 text; fetch or convert it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; convert the file to UTF-8") from None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _decompressed(path: Path) -> bytes:
    """All bytes of a compressed file, its checksum verified.

    Raises:
      UserError: the file is missing, unreadable, no gzip file or truncated, or holds more than ``INFLATED`` bytes and
        more than ``RATIO`` times its length.
    """
    packed = read_file(path)
    most = max(INFLATED, RATIO * len(packed))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            data = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: truncated or not a gzip file ({str(error)[:120]}); fetch or write it again") from None
    if len(data) > most:
        raise UserError(
            f"{path}: contains more than {most:,} bytes from {len(packed):,} compressed bytes; decompress it"
        )
    return data


def read_whole_number(text: str) -> int | None:
    """A whole number of at most 18 ASCII digits, which an int64 holds; None for anything else.

    Python's ``int`` takes more: signs, underscores, digits of other scripts; and it raises beyond 4,300 digits.
    """
    return int(text) if len(text) <= DIGITS and text.isascii() and text.isdecimal() else None


def read_number(text: str) -> float | None:
    """A finite number in ASCII digits, as ``-1.5e3``; None for anything else.

    Python's ``float`` takes more: underscores, digits of other scripts, infinities.
    """
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def number_in(text: str, place: str, cure: str) -> float:
    """The finite number in a cell; a UserError that begins with ``place`` and ends with ``cure`` if there is none."""
    value = read_number(text)
    if value is None:
        cure = "write a decimal point instead of the comma" if _DECIMAL_COMMA.fullmatch(text) else cure
        raise UserError(f"{place} {text[:40]!r} is not a finite number; {cure}")
    return value


def take_count(path: Path, lines: list[str]) -> None:
    """Raises a UserError unless the first line is the number of lines that follow it."""
    announced = lines[0].strip() if lines else ""
    count = read_whole_number(announced)
    if count is None:
        raise UserError(
            f"{path}:1: expected a line with the count of rows, found {announced[:40]!r}; "
            "put the count on the first line"
        )
    if count != len(lines) - 1:
        raise UserError(
            f"{path}:1: the count says {count} rows but {len(lines) - 1} follow; "
            "the file is truncated or its count is wrong: fetch it again or correct line 1"
        )
