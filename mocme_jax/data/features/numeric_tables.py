"""Numbers of entities as people write them: one value per row, or a table with one column per attribute."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mocme_jax.data.features.modality_names import modality_name
from mocme_jax.data.readers.csv_table import TABLE, TableRow, read_csv
from mocme_jax.data.readers.text_lines import number_in, read_lines
from mocme_jax.errors import UserError, refuse

NUMERIC_FILE = "numeric_triples.tsv"

MOST_WORDS = 32
"""So many different words may stand in a column of words."""

_MOST_CELLS = 1 << 23
# Not "nan", "inf", "1,5" or "12 km": these are numbers gone wrong.
_LIKE_A_NUMBER = re.compile(r"[+-]?(?:\.?\d|nan$|inf)", re.IGNORECASE)


class NumericRow(NamedTuple):
    """A row of a file: its line, whose it is as written, and pairs of an attribute and a finite number."""

    line: int
    key: str
    values: list[tuple[str, float]]


def numeric_source(folders: Sequence[Path]) -> Path | None:
    """The first file of attributes in the folders: ``numeric_triples.tsv``, or a ``.csv`` called like the modality."""
    for folder in folders:
        tables = (path for path in sorted(folder.iterdir()) if path.suffix.lower() == TABLE)
        for path in (folder / NUMERIC_FILE, *(path for path in tables if modality_name(path.stem) == "numeric")):
            if path.exists():
                return path
    return None


def read_numeric_rows(
    path: Path, notify: Callable[[str], None] = print, bad: Callable[[str], None] = refuse
) -> list[NumericRow]:
    """Reads a table if the name ends in ``.csv``, otherwise rows ``entity<TAB>attribute<TAB>value``.

    A table is as read_csv says. A column of words becomes one attribute per word, ``column=word``, 1 for the entities
    that have the word and 0 for those that have another; with more than ``MOST_WORDS`` different ones it is left out.
    Of rows with tabs, a first line that ends in the word ``value`` is a header. Numbers have a decimal point.

    Args:
      path: the file.
      notify: told in one line of each column of words.
      bad: told of a malformed row or value, which is then left out; by default it raises.

    Raises:
      UserError: the file can't be read, or there is no value.
    """
    is_table = path.suffix.lower() == TABLE
    rows = _table_rows(path, notify, bad) if is_table else _triple_rows(path, bad)
    if not any(row.values for row in rows):
        expected = "values" if is_table else "rows 'entity<TAB>attribute<TAB>value'"
        raise UserError(f"{path}: contains no {expected}")
    return rows


def _triple_rows(path: Path, bad: Callable[[str], None]) -> list[NumericRow]:
    lines = read_lines(path)
    first = 2 if lines and lines[0].split("\t")[-1].strip().lower() == "value" else 1
    rows: list[NumericRow] = []
    for number, line in enumerate(lines[first - 1 :], start=first):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 3 or not fields[0] or not fields[1]:
            bad(f"{path}:{number}: expected 'entity<TAB>attribute<TAB>value', found {line[:60]!r}")
            continue
        cell = (fields[1], fields[2], f"{path}:{number}: value")
        rows.append(NumericRow(number, fields[0], _numbers([cell], "correct or remove the line", bad)))
    return rows


def _table_rows(path: Path, notify: Callable[[str], None], bad: Callable[[str], None]) -> list[NumericRow]:
    names, table = read_csv(path, bad)
    one_hot = _columns_of_words(path, names, table, notify)
    rows = []
    for line, key, cells in table:
        filled = [(name, cell) for name, cell in zip(names, cells, strict=True) if cell]
        numbers = [
            (name, cell, f"{path}:{line}: column {name[:40]!r}: value") for name, cell in filled if name not in one_hot
        ]
        values = _numbers(numbers, "correct it or leave the cell empty", bad)
        for name, cell in filled:
            values += one_hot.get(name, {}).get(cell, [])
        rows.append(NumericRow(line, key, values))
    return rows


def _numbers(cells: list[tuple[str, str, str]], cure: str, bad: Callable[[str], None]) -> list[tuple[str, float]]:
    """Pairs of an attribute and its number, from an attribute, a cell and the cell's place each."""
    pairs = []
    for name, cell, place in cells:
        try:
            pairs.append((name, number_in(cell, place, cure)))
        except UserError as error:
            bad(str(error))
    return pairs


def _columns_of_words(
    path: Path, names: list[str], table: list[TableRow], notify: Callable[[str], None]
) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """For each column of words, what each word gives: a pair per word of the column; nothing for a column left out."""
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    left, made = [], 0
    for column, name in enumerate(names):
        cells = [row.cells[column] for row in table if row.cells[column]]
        if not cells or any(_LIKE_A_NUMBER.match(cell) for cell in cells):
            continue
        words = sorted(set(cells))
        if len(words) > MOST_WORDS:
            left.append(f"{name[:40]!r} ({len(words):,})")
            found[name] = {}
            continue
        made += len(words) * len(cells)
        if made > _MOST_CELLS:
            raise UserError(f"{path}: columns of words would take more than {_MOST_CELLS:,} cells; leave some out")
        # The pairs are shared by all rows.
        zeros, ones = ([(f"{name}={word}", value) for word in words] for value in (0.0, 1.0))
        found[name] = {word: [*zeros[:at], ones[at], *zeros[at + 1 :]] for at, word in enumerate(words)}
    told = [f"{name[:40]!r} ({len(words)})" for name, words in found.items() if words]
    if told:
        notify(f"{path}: columns of words become one attribute per word: {', '.join(told)[:300]}")
    if left:
        notify(f"{path}: columns of more than {MOST_WORDS} different words are left out: {', '.join(left)[:300]}")
    return found
