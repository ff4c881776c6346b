"""Lines of a UTF-8 text file, with errors a user can act on."""

from __future__ import annotations

from pathlib import Path

from mocme_jax.errors import UserError


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without line ends, a byte-order mark or blank lines at the end.

    Only line feeds end a line: names may hold other Unicode separators. ``lines[i]`` is line ``i + 1`` of the
      file.

    Raises:
      UserError: the file is missing, unreadable or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
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


def take_count(path: Path, lines: list[str]) -> None:
    """Checks that the first line announces how many lines follow.

    Raises:
      UserError: the first line is no whole number, or the number is wrong (a truncated file, most often).
    """
    announced = lines[0].strip() if lines else ""
    if not announced.isdecimal():
        raise UserError(
            f"{path}:1: expected a line with the count of rows, found {announced[:40]!r}; "
            "put the count on the first line"
        )
    if int(announced) != len(lines) - 1:
        raise UserError(
            f"{path}:1: the count says {int(announced)} rows but {len(lines) - 1} follow; "
            "the file is truncated or its count is wrong: fetch it again or correct line 1"
        )
