"""Figures of a benchmark as they were saved, perhaps by somebody else, checked before they are compared or used."""

from pathlib import Path
from typing import Any

from mocme_jax.data.readers.json_file import read_json
from mocme_jax.errors import UserError, one_line

SETTING = ("stage", "entities", "devices", "mapper", "precision")
"""What tells rows apart; a row may lack some, but not its stage."""


def read_figures(path: str | Path) -> dict[str, Any]:
    """The figures that ``benchmark --json`` wrote to a file: ``device``, a text, and ``rows``.

    A row has texts and whole numbers in ``stage`` and the rest of SETTING, a text ``unit``, and the numbers
    ``rate`` (above 0) and ``share``.

    Raises:
      UserError: the file is missing or unreadable, or not what ``benchmark --json`` writes.
    """
    figures = read_json(Path(path))
    if not isinstance(figures, dict) or not isinstance(figures.get("device"), str) or not figures.get("rows"):
        raise UserError(f"{path}: is not a file of benchmark --json; write it with that command")
    rows = figures["rows"]
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        raise UserError(f"{path}: has rows that benchmark --json does not write; write the file with that command")
    return {"device": one_line(figures["device"]), "rows": [_printable(row) for row in rows]}


def setting_of(row: dict[str, Any]) -> tuple:
    """What a row was measured for, in the order of SETTING."""
    return tuple(row[name] for name in SETTING if name in row)


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("stage"), str)
        and isinstance(row.get("unit"), str)
        and all(isinstance(row[name], str | int) for name in SETTING if name in row)
        and all(_is_number(row.get(name)) for name in ("rate", "share"))
        and row["rate"] > 0
    )


def _is_number(value: Any) -> bool:
    # A whole number may be too large for a float; NaN is not below anything.
    return type(value) in (int, float) and abs(value) < 1e300


def _printable(row: dict[str, Any]) -> dict[str, Any]:
    return {one_line(name): one_line(value) if isinstance(value, str) else value for name, value in row.items()}
