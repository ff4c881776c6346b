"""Graphs in the OpenKE layout: names with ids, and one file of id triples a split.

``entity2id.txt`` and ``relation2id.txt`` hold a count, then ``name id``, separated by a tab or, where a line has none,
the last space. ``train2id.txt``, ``valid2id.txt`` and ``test2id.txt`` hold a count, then ``head tail relation``.
"""

import itertools
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.readers.text_lines import DIGITS, read_lines, read_whole_number, take_count
from mocme_jax.errors import UserError

SPLITS = ("train", "valid", "test")


def read_openke(folder: Path) -> KnowledgeGraph:
    """Reads a graph without modalities; triples stay as released, duplicates and order included.

    Raises:
      UserError: a file is missing, truncated, malformed, names an id outside the names, or train is empty.
    """
    folder = Path(folder)
    entities = read_names(folder / "entity2id.txt")
    relations = read_names(folder / "relation2id.txt")
    splits = {}
    for split in SPLITS:
        path = folder / f"{split}2id.txt"
        if not path.exists():
            raise UserError(f"{path}: no such file; a graph without {split} triples has a file with the one line 0")
        splits[split] = read_id_triples(path, len(entities), len(relations))
    if not len(splits["train"]):
        raise UserError(f"{folder / 'train2id.txt'}: holds no triples; a graph needs training triples")
    return KnowledgeGraph(folder.resolve().name, entities, relations, **splits)


def read_names(path: Path) -> list[str]:
    """Names by id from ``entity2id.txt`` or ``relation2id.txt``.

    Raises:
      UserError: the count does not fit, a line has no id, or ids or names repeat or leave a gap.
    """
    lines = read_lines(path)
    take_count(path, lines)
    total = len(lines) - 1
    names: list[str | None] = [None] * total
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        name, _, digits = line.rpartition("\t" if "\t" in line else " ")
        name, index = name.strip(), read_whole_number(digits.strip())
        if not name or index is None:
            raise UserError(f"{path}:{number}: expected 'name id' with a tab or a space between, found {line[:60]!r}")
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
    return names  # type: ignore[return-value]  # total distinct ids below total leave no gap


def read_id_triples(path: Path, entities: int, relations: int) -> np.ndarray:
    """Triples int32 ``[T, 3]`` (head, relation, tail) from rows ``head tail relation`` under a count line."""
    lines = read_lines(path)
    take_count(path, lines)
    rows = list(map(str.split, lines[1:]))
    tokens = list(itertools.chain.from_iterable(rows))
    # All at once, and with a look at every row only where that fails.
    digits, longest = "".join(tokens) or "0", max(map(len, tokens), default=0)
    if not (set(map(len, rows)) <= {3} and longest <= DIGITS and digits.isascii() and digits.isdecimal()):
        wrong = (len(row) != 3 or any(read_whole_number(token) is None for token in row) for row in rows)
        row = next(place for place, is_wrong in enumerate(wrong) if is_wrong)
        found = " ".join(rows[row])[:60]
        raise UserError(f"{path}:{row + 2}: expected three ids 'head tail relation', found {found!r}")
    triples = np.array(list(map(int, tokens)), np.int64).reshape(-1, 3)[:, [0, 2, 1]]
    check_ids(path, triples, entities, relations, first_line=2)
    return triples.astype(np.int32)


def check_ids(path: Path, triples: np.ndarray, entities: int, relations: int, first_line: int) -> None:
    """Raises UserError, with file and line, at the first id without a name; rows are (head, relation, tail)."""
    limits = np.array([entities, relations, entities])
    bad = np.argwhere((triples < 0) | (triples >= limits))
    if len(bad):
        row, column = bad[0]
        kind, names = ("relation", "relation2id.txt") if column == 1 else ("entity", "entity2id.txt")
        raise UserError(
            f"{path}:{row + first_line}: {kind} id {triples[row, column]} is out of range; {names} has "
            f"{limits[column]} names, ids 0 to {limits[column] - 1}"
        )
