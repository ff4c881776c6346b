"""Figures of a benchmark as they were saved, perhaps by somebody else, checked before they are compared or used."""

from pathlib import Path
from typing import Any

from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError, one_line

SETTING = ("stage", "entities", "devices", "mapper", "precision")
"""What tells rows apart; a row may lack some, but not its stage."""

_ROW = {"stage": str, "unit": str, "rate": float, "share": float}
_ROW |= {f"{name}?": (str, int) for name in SETTING[1:]}


def read_figures(path: str | Path) -> dict[str, Any]:
    """The figures that ``benchmark --json`` wrote to a file: ``device``, a text, and ``rows``.

    A row has texts and whole numbers in ``stage`` and the rest of SETTING, a text ``unit``, and the numbers
    ``rate`` (above 0) and ``share``.

    Raises:
      UserError: the file is missing or unreadable, or not what ``benchmark --json`` writes.
    """
    figures = read_json(Path(path))
    if misfit(figures, {"device": str}) or not figures.get("rows"):
        raise UserError(f"{path}: is not a file of benchmark --json; write it with that command")
    if misfit(figures["rows"], [_ROW]) or not all(row["rate"] > 0 for row in figures["rows"]):
        raise UserError(f"{path}: has rows that benchmark --json does not write; write the file with that command")
    return {"device": one_line(figures["device"]), "rows": [_printable(row) for row in figures["rows"]]}


def setting_of(row: dict[str, Any]) -> tuple:
    """What a row was measured for, in the order of SETTING."""
    return tuple(row[name] for name in SETTING if name in row)


def _printable(row: dict[str, Any]) -> dict[str, Any]:
    return {one_line(name): one_line(value) if isinstance(value, str) else value for name, value in row.items()}
