"""Graphs in the OpenKE layout: names with ids, and one file of id triples a split.

``train2id.txt``, ``valid2id.txt`` and ``test2id.txt`` hold a count, then ``head tail relation``. See name_files for
``entity2id.txt`` and ``relation2id.txt``.
"""

import contextlib
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.name_files import NAME_FILES, read_names
from mocme_jax.data.readers.bounded_files import open_file
from mocme_jax.data.readers.text_lines import DIGITS, read_lines, read_whole_number, take_count
from mocme_jax.errors import UserError

SPLITS = ("train", "valid", "test")
# Bytes read at a time.
_BLOCK = 1 << 22
_LARGEST = np.iinfo(np.int32).max


def read_openke(folder: Path) -> KnowledgeGraph:
    """Reads a graph without modalities; triples stay as released, duplicates and order included.

    Raises:
      UserError: a file is missing, truncated, malformed, names an id outside the names, or train is empty.
    """
    entities, relations = (read_names(folder / file).names for file in NAME_FILES)
    splits = {}
    for split in SPLITS:
        path = folder / f"{split}2id.txt"
        if not path.exists():
            raise UserError(
                f"{path}: no such file; if there are no {split} triples, write a file with the single line 0"
            )
        rows = _plain_rows(path)
        triples = (_any_rows(path) if rows is None else rows)[:, [0, 2, 1]]
        check_ids(path, triples, len(entities), len(relations), first_line=2)
        splits[split] = triples.astype(np.int32, copy=False)
    if not len(splits["train"]):
        raise UserError(f"{folder / 'train2id.txt'}: contains no triples; a graph needs training triples")
    return KnowledgeGraph(folder.resolve().name, entities, relations, **splits)


def _plain_rows(path: Path) -> np.ndarray | None:
    """Rows int32 ``[T, 3]`` of a file in ASCII without an error, read a block at a time; None for any other file."""
    parts = [np.zeros((0, 3), np.int32)]
    with open_file(path) as file, contextlib.suppress(OSError):
        count = file.readline().strip()
        while block := file.read(_BLOCK):
            rows = _parse_block(block + file.readline())
            if rows is None:
                return None
            parts.append(rows)
        if count.isdigit() and len(count) <= DIGITS and int(count) == sum(map(len, parts)):
            return np.concatenate(parts)
    return None


def _parse_block(block: bytes) -> np.ndarray | None:
    """Three ids per line, int32 ``[T, 3]``; None if there is anything else."""
    if block.translate(None, b"0123456789 \t\r\n"):
        return None
    characters = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", np.uint8)
    edges = np.diff(characters > ord(" "), prepend=False)
    starts, ends = np.flatnonzero(edges).reshape(-1, 2).T
    before = np.searchsorted(starts, np.flatnonzero(characters == ord("\n")))
    if not np.array_equal(before, np.arange(3, len(starts) + 1, 3)) or (ends - starts).max() > DIGITS:
        return None
    ids = np.fromstring(block, np.int64, sep=" ")
    return ids.reshape(-1, 3).astype(np.int32) if ids.max() <= _LARGEST else None


def _any_rows(path: Path) -> np.ndarray:
    """Rows int64 ``[T, 3]`` of a file in any encoding of digits and spaces that Python reads; tells of an error."""
    lines = read_lines(path)
    take_count(path, lines)
    rows = list(map(str.split, lines[1:]))
    for number, row in enumerate(rows, start=2):
        if len(row) != 3 or any(read_whole_number(token) is None for token in row):
            found = " ".join(row)[:60]
            raise UserError(f"{path}:{number}: expected three ids 'head tail relation', found {found!r}")
    return np.array([list(map(int, row)) for row in rows], np.int64).reshape(-1, 3)


def check_ids(
    path: Path,
    triples: np.ndarray,
    entities: int,
    relations: int,
    first_line: int,
    name_files: tuple[str, str] = NAME_FILES,
) -> None:
    """Raises UserError, with file and line, at the first id without a name; rows are (head, relation, tail)."""
    limits = (entities, relations, entities)
    columns = list(zip(triples.T, limits, strict=True))
    if len(triples) and any(ids.min() < 0 or ids.max() >= limit for ids, limit in columns):
        row, column = np.argwhere((triples < 0) | (triples >= np.array(limits)))[0]
        kind, names = ("relation", name_files[1]) if column == 1 else ("entity", name_files[0])
        raise UserError(
            f"{path}:{row + first_line}: {kind} id {triples[row, column]} is out of range; {names} has "
            f"{limits[column]} names, ids 0 to {limits[column] - 1}"
        )
