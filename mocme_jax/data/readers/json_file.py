"""JSON that somebody else may have written: bounded, UTF-8, every name once."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from mocme_jax.data.readers.bounded_files import Damaged, read_file
from mocme_jax.errors import UserError

LARGEST = 1 << 22
"""Bytes. What the project writes stays far below; parsed, JSON may take 20 times its length."""

LARGEST_ROWS = 1 << 26
"""Bytes of a file of rows. A row of an evaluation takes one to five thousand."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      UserError: the file is missing, unreadable, too long, or no JSON.
    """
    try:
        return parse_json(read_file(path, LARGEST))
    except Damaged as error:
        raise UserError(f"{path}: is not JSON ({error}); fetch or write it again") from None


def rows_of(path: Path) -> list[tuple[bytes, dict]]:
    """The lines of a file that hold a JSON object, each with the object; half a line, which a kill leaves, does not.

    Without the file there are none.

    Raises:
      UserError: the file can't be read, or is too long.
    """
    rows = []
    for line in read_file(path, LARGEST_ROWS).split(b"\n") if os.path.lexists(path) else ():
        with contextlib.suppress(Damaged):
            if isinstance(row := parse_json(line), dict):
                rows.append((line, row))
    return rows


def parse_json(data: bytes) -> Any:
    """What a JSON text holds.

    Raises:
      Damaged: longer than LARGEST, not UTF-8, no JSON, nested too deeply, or a name is given twice in an object.
    """
    if len(data) > LARGEST:
        raise Damaged(f"{len(data):,} bytes, but such a text may have at most {LARGEST:,}")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_each_once)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Damaged(f"line {line} is not UTF-8 text") from None
    except RecursionError:
        raise Damaged("nested too deeply") from None
    except ValueError as error:
        # Not JSONDecodeError alone: a number of more than 4,300 digits is a ValueError.
        raise Damaged(str(error)) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise Damaged(f"{twice[:60]!r} is given twice")
    return found
