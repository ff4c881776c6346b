"""Names by id: ``entity2id.txt`` and ``relation2id.txt``, or ``entities.dict`` and ``relations.dict``.

A line is ``name id``, in a ``.dict`` ``id name``, separated by a tab or, where a line has none, by the space beside the
id. A count of the lines may come first.
"""

from pathlib import Path
from typing import NamedTuple

from mocme_jax.data.readers.text_lines import read_lines, read_whole_number, take_count
from mocme_jax.errors import UserError

NAME_FILES = ("entity2id.txt", "relation2id.txt")
_PAIRS = (NAME_FILES, ("entities.dict", "relations.dict"))


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


def read_name_files(folder: Path) -> tuple[NameFile, NameFile] | None:
    """The names of entities and of relations that a folder has files for; None where it has none.

    Raises:
      UserError: there is one file without the other, or see read_names.
    """
    for pair in _PAIRS:
        entities, relations = (folder / file for file in pair)
        there = [path.exists() for path in (entities, relations)]
        if all(there):
            return read_names(entities), read_names(relations)
        if any(there):
            missing = relations if there[0] else entities
            raise UserError(f"{missing}: no such file; give {pair[0]} and {pair[1]} both or neither")
    return None


def read_names(path: Path) -> NameFile:
    """Names by id from one of the files.

    Raises:
      UserError: the file is empty, its count does not fit, a line has no id, or ids or names repeat or leave a gap.
    """
    lines = read_lines(path)
    counted = not lines or lines[0].strip().isdecimal()
    if counted:
        take_count(path, lines)
    first = 1 + counted
    total = len(lines) - counted
    names: list[str | None] = [None] * total
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines[counted:], start=first):
        separator = "\t" if "\t" in line else " "
        if path.suffix == ".dict":
            digits, _, name = line.partition(separator)
        else:
            name, _, digits = line.rpartition(separator)
        name, index = name.strip(), read_whole_number(digits.strip())
        if not name or index is None:
            form = "id name" if path.suffix == ".dict" else "name id"
            raise UserError(f"{path}:{number}: expected {form!r} with a tab or a space between, found {line[:60]!r}")
        if index >= total:
            raise UserError(f"{path}:{number}: id {index} is out of range; {total} names have ids 0 to {total - 1}")
        if names[index] is not None:
            raise UserError(f"{path}:{number}: id {index} is given twice; ids must be 0 to {total - 1}, each once")
        if name in line_of:
            raise UserError(
                f"{path}:{number}: name {name[:60]!r} stands on line {line_of[name]} too; give each name once"
            )
        names[index] = name
        line_of[name] = number
    return NameFile(path, names, counted)  # type: ignore[arg-type]  # total distinct ids below total leave no gap
