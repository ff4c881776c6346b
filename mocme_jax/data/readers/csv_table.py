"""Tables with commas between their columns, one row per entity."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mocme_jax.data.readers.text_lines import number_in, read_lines, read_number
from mocme_jax.errors import UserError, refuse

TABLE = ".csv"
"""How the name of a table ends."""


class TableRow(NamedTuple):
    """A row: its line, the entity as written, and the other cells by column; an empty cell is no value."""

    line: int
    key: str
    cells: list[str]


def read_csv(path: Path, bad: Callable[[str], None] = refuse) -> tuple[list[str], list[TableRow]]:
    """The names of a table's columns after the first, and its rows.

    The first column, whatever its name, holds the entities, each once. The first row is a header unless it names an
    entity and numbers alone; then columns are called by their numbers. Cells may stand in double quotes.

    Args:
      path: the file.
      bad: told of a row that is no row of the table, which is then left out; by default it raises.

    Raises:
      UserError: the file can't be read or is no table with commas.
    """
    # The reader wants line ends: without them, it would join the lines of a quoted name.
    reader = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    rows: list[TableRow] = []
    header: list[str] = []
    line_of: dict[str, int] = {}
    while True:
        line = reader.line_num + 1
        try:
            key, *cells = [cell.strip() for cell in next(reader)] or [""]
        except StopIteration:
            return header, rows
        except csv.Error as error:
            raise UserError(f"{path}:{line}: malformed ({error}); write a comma-separated table") from None
        if not header:
            has_names = not key or any(read_number(cell) is None for cell in cells)
            header = _check_header(f"{path}:{line}", key, cells, has_names)
            if has_names:
                continue
        if not key and not any(cells):
            continue
        if len(cells) != len(header):
            bad(
                f"{path}:{line}: {len(cells) + 1} cells in a table of {len(header) + 1} columns; add or remove commas, "
                "and quote cells that contain a comma"
            )
        elif not key:
            bad(f"{path}:{line}: names no entity; fill in the first column or remove the line")
        elif line_of.setdefault(key, line) != line:
            bad(f"{path}:{line}: {key[:60]!r} already has a row, on line {line_of[key]}; keep one of them")
        else:
            rows.append(TableRow(line, key, cells))


def read_csv_vectors(path: Path) -> dict[str, list[str] | np.ndarray]:
    """The entities of a table as ``ids``, and as ``rows`` its numbers, ``[n, d]`` float64; NaN for an empty row.

    Raises:
      UserError: see read_csv; or a cell is no number, or empty in a row that has others.
    """
    names, table = read_csv(path)
    rows = np.full((len(table), len(names)), np.nan)
    cure = "give numbers only, or rename the file; descriptions are read from descriptions.tsv"
    for vector, row in zip(rows, table, strict=True):
        if any(row.cells):
            vector[:] = [
                number_in(cell, f"{path}:{row.line}: column {name[:40]!r}: value", cure)
                for name, cell in zip(names, row.cells, strict=True)
            ]
    return {"ids": [row.key for row in table], "rows": rows}


def _check_header(place: str, key: str, cells: list[str], has_names: bool) -> list[str]:
    if not cells:
        kind = "tabs" if "\t" in key else "semicolons" if ";" in key else ""
        cure = f"write commas instead of {kind}" if kind else "a table starts with a header: entity,attribute,attribute"
        raise UserError(f"{place}: no commas between columns; {cure}")
    if not has_names:
        return [f"column {column}" for column in range(2, len(cells) + 2)]
    seen = set()
    for column, name in enumerate(cells, start=2):
        if not name:
            raise UserError(f"{place}: column {column} has no name; write one in the header")
        if name in seen:
            raise UserError(
                f"{place}: column {column}: another column is also called {name[:40]!r}; rename or remove one"
            )
        seen.add(name)
    return cells
