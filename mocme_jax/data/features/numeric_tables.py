"""Numbers of entities as people write them: a row a value, or a table with a column an attribute."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from mocme_jax.data.readers.text_lines import read_lines, read_number
from mocme_jax.errors import UserError

TABLE = ".csv"
"""How the name of a table ends; any other file holds a value a row."""

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)


class NumericRow(NamedTuple):
    """A row of a file: its line, whose it is as written, and pairs of an attribute and a finite number."""

    line: int
    key: str
    values: list[tuple[str, float]]


def read_numeric_rows(path: Path) -> list[NumericRow]:
    """Reads a table if the name ends in ``.csv``, otherwise rows ``entity<TAB>attribute<TAB>value``.

    A table has commas between its columns and a header; its first column, whatever its name, holds the entities, each
    once; the others are attributes, and an empty cell is no value. Cells may stand in double quotes. Of rows with tabs,
    a first line that ends in the word ``value`` is a header. Numbers have a decimal point.

    Raises:
      UserError: a malformed line or table, a value that is no finite number, or there is no value.
    """
    path = Path(path)
    rows = _read_table(path) if path.suffix.lower() == TABLE else _read_triples(path)
    if not any(row.values for row in rows):
        expected = "values" if path.suffix.lower() == TABLE else "rows 'entity<TAB>attribute<TAB>value'"
        raise UserError(f"{path}: holds no {expected}")
    return rows


def _read_triples(path: Path) -> list[NumericRow]:
    lines = read_lines(path)
    first = 2 if lines and lines[0].split("\t")[-1].strip().lower() == "value" else 1
    rows: list[NumericRow] = []
    for number, line in enumerate(lines[first - 1 :], start=first):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 3 or not fields[0] or not fields[1]:
            raise UserError(f"{path}:{number}: expected 'entity<TAB>attribute<TAB>value', found {line[:60]!r}")
        value = _number(fields[2], f"{path}:{number}: value", "correct or remove the line")
        rows.append(NumericRow(number, fields[0], [(fields[1], value)]))
    return rows


def _read_table(path: Path) -> list[NumericRow]:
    # The reader wants line ends: without them, it would join the lines of a quoted name.
    reader = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    rows: list[NumericRow] = []
    header: list[str] = []
    line_of: dict[str, int] = {}
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return rows
        except csv.Error as error:
            raise UserError(f"{path}:{line}: malformed ({error}); write it as a table with commas") from None
        if not header:
            header = _check_header(f"{path}:{line}", cells)
            continue
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{path}:{line}: {len(cells)} cells under a header of {len(header)}; add or remove commas, "
                "and quote a cell that holds one"
            )
        key = cells[0]
        if not key:
            raise UserError(f"{path}:{line}: names no entity; fill in the first column or remove the line")
        if line_of.setdefault(key, line) != line:
            raise UserError(f"{path}:{line}: {key[:60]!r} has a row already, in line {line_of[key]}; keep one of them")
        cure = "correct it or leave the cell empty"
        pairs = [(name, cell) for name, cell in zip(header[1:], cells[1:], strict=True) if cell]
        values = [(name, _number(cell, f"{path}:{line}: column {name[:40]!r}: value", cure)) for name, cell in pairs]
        rows.append(NumericRow(line, key, values))


def _check_header(place: str, cells: list[str]) -> list[str]:
    if len(cells) < 2:
        kind = "tabs" if "\t" in "".join(cells) else "semicolons" if ";" in "".join(cells) else ""
        cure = f"write commas for {kind}" if kind else "a table starts with a header: entity,attribute,attribute"
        raise UserError(f"{place}: no commas between columns; {cure}")
    seen = set()
    for column, name in enumerate(cells[1:], start=2):
        if not name:
            raise UserError(f"{place}: column {column} has no name; write one in the header")
        if name in seen:
            raise UserError(f"{place}: column {column}: another is called {name[:40]!r}, too; rename or remove one")
        seen.add(name)
    return cells


def _number(text: str, place: str, cure: str) -> float:
    value = read_number(text)
    if value is None:
        comma = "; write a decimal point for the comma" if _DECIMAL_COMMA.fullmatch(text) else f"; {cure}"
        raise UserError(f"{place} {text[:40]!r} is no finite number{comma}")
    return value
