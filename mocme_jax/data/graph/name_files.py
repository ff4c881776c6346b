"""Names by id, of entities and of relations, each in a file of its own.

A line is ``name id``, or ``id name`` in a ``.dict`` or ``.del``, separated by a tab or, where a line has none, by the
space beside the id. A count of the lines may come first. In ``entities.txt`` and ``relations.txt`` a line is a name
alone, and the first has id 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mocme_jax.data.readers.text_lines import read_lines, read_whole_number, take_count
from mocme_jax.errors import UserError

NAME_FILES = ("entity2id.txt", "relation2id.txt")
# The first that is there counts. Triples in .del files have the ids of the .del files of names, whatever else is there.
_CALLED = (
    ("entity_ids.del", "entity2id.txt", "entities.dict", "entities.txt"),
    ("relation_ids.del", "relation2id.txt", "relations.dict", "relations.txt"),
)
_ID_FIRST = (".dict", ".del")


class NameFile(NamedTuple):
    """What a file of names holds.

    Attributes:
      path: of the file.
      names: by id.
      counted: whether the file says how many there are: then there are no others.
    """

    path: Path
    names: list[str]
    counted: bool


def as_name_file(file: str, names: Sequence[str]) -> bytes:
    """The content of a file of names by id, with a count.

    Args:
      file: its name, for the message.
      names: by id.

    Raises:
      UserError: a line can't hold a name.
    """
    for name in names:
        # As read_lines: only line feeds end a line.
        if not name or name != name.strip() or not {"\t", "\n", "\0"}.isdisjoint(name):
            raise UserError(
                f"{name[:60]!r}: {file} cannot contain a name that is empty, contains a tab, a line feed or a zero "
                "byte, or starts or ends with a blank"
            )
    lines = [str(len(names)), *(f"{name}\t{index}" for index, name in enumerate(names))]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def read_name_files(folder: Path) -> list[NameFile | None]:
    """The names of entities and of relations that a folder has files for; None where it has none.

    Raises:
      UserError: see read_names.
    """
    paths = [next((folder / name for name in names if (folder / name).exists()), None) for names in _CALLED]
    return [None if path is None else read_names(path) for path in paths]


def read_names(path: Path) -> NameFile:
    """Names by id from one of the files.

    Raises:
      UserError: the file is empty, its count does not fit, a line has no id, or ids or names repeat or leave a gap.
    """
    lines, listed = read_lines(path), path.stem in ("entities", "relations") and path.suffix == ".txt"
    counted = not listed and (not lines or lines[0].strip().isdecimal())
    if counted:
        take_count(path, lines)
    first = 1 + counted
    total = len(lines) - counted
    names: list[str | None] = [None] * total
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines[counted:], start=first):
        separator = "\t" if "\t" in line else " "
        if listed:
            name, digits = line, "" if "\t" in line.strip() else str(number - 1)
        elif path.suffix in _ID_FIRST:
            digits, _, name = line.partition(separator)
        else:
            name, _, digits = line.rpartition(separator)
        name, index = name.strip(), read_whole_number(digits.strip())
        if not name or index is None:
            form = "'id name'" if path.suffix in _ID_FIRST else "'name id'"
            form = "a name without a tab," if listed else f"{form} with a tab or a space between them,"
            raise UserError(f"{path}:{number}: expected {form} found {line[:60]!r}")
        if index >= total:
            raise UserError(f"{path}:{number}: id {index} is out of range; {total} names have ids 0 to {total - 1}")
        if names[index] is not None:
            raise UserError(f"{path}:{number}: id {index} is given twice; ids must be 0 to {total - 1}, each once")
        if name in line_of:
            raise UserError(f"{path}:{number}: name {name[:60]!r} is also on line {line_of[name]}; give each name once")
        names[index] = name
        line_of[name] = number
    return NameFile(path, names, counted)  # type: ignore[arg-type]  # total distinct ids below total leave no gap
