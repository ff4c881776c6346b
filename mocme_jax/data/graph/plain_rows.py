"""Rows of a plain triple file.

A row is ``head relation tail``: separated by tabs, under a count line or none; or ``h r t .`` separated by
single spaces without a count line; or by spaces alone, where every row has three tokens. A first row that calls the
columns by such names is a header, which may give them another order; it is no triple. A file called ``.nt`` holds
N-Triples, where comments and blanks inside of a literal are no columns.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mocme_jax.data.readers.text_lines import read_lines, take_count
from mocme_jax.errors import UserError

_COLUMN_NAMES = (
    {"head", "h", "subject", "subj", "s", "source", "src", "from"},
    {"relation", "rel", "r", "predicate", "pred", "p", "property", "edge", "relationship", "link"},
    {"tail", "t", "object", "obj", "o", "target", "tgt", "to", "destination", "dst"},
)
# What follows one of these in a header: head_id, subjectLabel, target entity.
_COLUMN_NAME_ENDS = ("id", "ids", "name", "label", "uri", "iri", "entity", "node", "type")
_OTHER_SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars"}
_STATEMENT = re.compile(
    r"\s*(<[^>]*>|_:\S+)\s*(<[^>]*>)\s*"
    r'(<[^>]*>|_:\S*[^\s.]|"(?:[^"\\]|\\.)*"(?:@[A-Za-z0-9-]+|\^\^<[^>]*>)?)\s*\.\s*(?:#.*)?'
)


class PlainRows(NamedTuple):
    """What a file holds.

    Attributes:
      path: of the file.
      rows: head, relation, tail.
      lines: of the rows.
      ordered: whether the file says which column is which.
    """

    path: Path
    rows: list[list[str]]
    lines: Sequence[int]
    ordered: bool = False


def read_rows(path: Path, notify: Callable[[str], None] = print) -> PlainRows:
    """Reads a file's rows, without blanks around names, and without the dot that ends a statement of N-Triples.

    Args:
      path: the file.
      notify: told in one line of a header.

    Raises:
      UserError: the file is missing, a row is malformed, or the columns are separated by something else.
    """
    lines = read_lines(path)
    if ".nt" in path.suffixes[-2:]:
        return _read_statements(path, lines)
    first = 1
    if lines and lines[0].strip().isdecimal():
        take_count(path, lines)
        first = 2
    body = lines[first - 1 :]
    # One separator a file: names may hold spaces where tabs separate.
    separator = "\t" if body and "\t" in body[0] else " "
    if separator == " ":
        _refuse_other_separators(path, first, body)
    dotted = all(line.rstrip().endswith((" .", "\t.")) for line in body)
    rows = []
    for number, line in enumerate(body, start=first):
        row = [cell.strip() for cell in line.strip(" " if separator == "\t" else None).split(separator)]
        if len(row) == 4 and row[3] == ".":
            row.pop()
        if len(row) != 3 or not all(row):
            kind = "tabs" if separator == "\t" else "single spaces"
            raise UserError(
                f"{path}:{number}: expected 'head relation tail' with {kind}, found {line[:60]!r}; "
                "write a tab between columns in every row"
            )
        if row[2].endswith("."):
            row[2] = _without_dot(row[2], dotted)
        rows.append(row)
    order = _header(rows)
    if order is None:
        return PlainRows(path, rows, range(first, first + len(rows)))
    words = " ".join(rows[0])[:60]
    how = "" if order == [0, 1, 2] else "; the columns are read in its order"
    notify(f"{path}:{first}: the header {words!r} is not a triple and is left out{how}")
    reordered = [[row[column] for column in order] for row in rows[1:]]
    return PlainRows(path, reordered, range(first + 1, first + len(rows)), ordered=True)


def _read_statements(path: Path, lines: list[str]) -> PlainRows:
    rows, numbers = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            statement = _STATEMENT.fullmatch(line)
            if statement is None:
                raise UserError(
                    f"{path}:{number}: expected N-Triples, '<head> <relation> <tail> .', found {line[:60]!r}"
                )
            rows.append(list(statement.groups()))
            numbers.append(number)
    return PlainRows(path, rows, numbers, ordered=True)


def _without_dot(term: str, dotted: bool) -> str:
    """A row's last term without the dot that ends a statement of N-Triples.

    Args:
      term: ends in a dot.
      dotted: whether every row of the file ends in a dot that stands alone.
    """
    bare = term[:-1].rstrip()
    if term[0] == "<":
        ends = bare.endswith(">")
    elif term[0] == '"':
        ends = '"' in bare[1:]
    else:
        ends = term.startswith("_:") or (dotted and term.endswith(" ."))
    return bare if ends and bare else term


def _header(rows: list[list[str]]) -> list[int] | None:
    """The columns of head, relation and tail if the first row names them and no other row holds these words."""
    if not rows:
        return None
    order = order_of(rows[0])
    if order is None:
        return None
    words = set(rows[0])
    # A file of one row may well be the triple (h, r, t).
    if len(rows) == 1 and min(map(len, words)) == 1:
        return None
    return None if any(not words.isdisjoint(row) for row in rows[1:]) else order


def order_of(words: Sequence[str]) -> list[int] | None:
    """The places of head, relation and tail among names of columns; None unless one each is called so."""
    roles = [_role(word) for word in words]
    return [roles.index(role) for role in range(3)] if all(roles.count(role) == 1 for role in range(3)) else None


def _role(word: str) -> int:
    """0, 1 or 2 for a word that calls a column head, relation or tail; -1 for any other."""
    name = re.sub(r"[^a-z]", "", word.lower()) if len(word) < 40 else ""
    names = {name, *(name.removesuffix(end) for end in _COLUMN_NAME_ENDS)}
    return next((role for role, known in enumerate(_COLUMN_NAMES) if names & known), -1)


def _refuse_other_separators(path: Path, first: int, body: list[str]) -> None:
    """Raises a UserError if another mark than the space makes three columns of every row, and makes them better."""
    for mark, kind in _OTHER_SEPARATORS.items():
        if not body or body[0].count(mark) != 2:
            continue
        columns, words = [line.split(mark) for line in body], [line.split(" ") for line in body]
        if any(len(row) != 3 or not all(row) for row in columns):
            continue
        # "City,_State near City,_State" has two commas too, but few relations by its words.
        by_words = all(len(row) == 3 for row in words)
        if not by_words or len({row[1] for row in columns}) <= len({row[1] for row in words}):
            raise UserError(
                f"{path}:{first}: columns are separated by {kind}, found {body[0][:60]!r}; write tabs instead of the "
                f"{kind}"
            )
