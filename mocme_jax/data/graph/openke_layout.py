"""Graphs in the OpenKE layout: names with ids, and one file of id triples a split.

``train2id.txt``, ``valid2id.txt`` and ``test2id.txt`` hold a count, then ``head tail relation``. See name_files for
``entity2id.txt`` and ``relation2id.txt``.
"""

import itertools
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.name_files import NAME_FILES, read_names
from mocme_jax.data.readers.text_lines import DIGITS, read_lines, read_whole_number, take_count
from mocme_jax.errors import UserError

SPLITS = ("train", "valid", "test")


def read_openke(folder: Path) -> KnowledgeGraph:
    """Reads a graph without modalities; triples stay as released, duplicates and order included.

    Raises:
      UserError: a file is missing, truncated, malformed, names an id outside the names, or train is empty.
    """
    folder = Path(folder)
    entities, relations = (read_names(folder / file).names for file in NAME_FILES)
    splits = {}
    for split in SPLITS:
        path = folder / f"{split}2id.txt"
        if not path.exists():
            raise UserError(
                f"{path}: no such file; if there are no {split} triples, write a file with the single line 0"
            )
        splits[split] = read_id_triples(path, len(entities), len(relations))
    if not len(splits["train"]):
        raise UserError(f"{folder / 'train2id.txt'}: contains no triples; a graph needs training triples")
    return KnowledgeGraph(folder.resolve().name, entities, relations, **splits)


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


def check_ids(
    path: Path,
    triples: np.ndarray,
    entities: int,
    relations: int,
    first_line: int,
    name_files: tuple[str, str] = NAME_FILES,
) -> None:
    """Raises UserError, with file and line, at the first id without a name; rows are (head, relation, tail)."""
    limits = np.array([entities, relations, entities])
    bad = np.argwhere((triples < 0) | (triples >= limits))
    if len(bad):
        row, column = bad[0]
        kind, names = ("relation", name_files[1]) if column == 1 else ("entity", name_files[0])
        raise UserError(
            f"{path}:{row + first_line}: {kind} id {triples[row, column]} is out of range; {names} has "
            f"{limits[column]} names, ids 0 to {limits[column] - 1}"
        )
