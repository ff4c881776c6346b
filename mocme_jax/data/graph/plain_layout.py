"""Graphs as plain ``train.txt``, ``valid.txt`` and ``test.txt`` files of names or ids.

A row is ``head relation tail``: separated by tabs, under a count line or none; or ``h r t .`` separated by
single spaces without a count line; or by spaces alone, where every row has three tokens.
"""

from pathlib import Path

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.openke_layout import SPLITS, check_ids, read_names
from mocme_jax.data.readers.text_lines import read_lines, read_whole_number, take_count
from mocme_jax.errors import UserError

# Rows and the line of the file where they start.
_Rows = tuple[list[list[str]], int]


def read_plain(folder: Path) -> KnowledgeGraph:
    """Reads a graph without modalities; triples stay as released, duplicates and order included.

    With ``entity2id.txt`` and ``relation2id.txt`` in the folder, tokens are their names, or their ids where
    every token of that kind is a whole number that is no name. Without, names are numbered in order of first
    appearance (train, valid, test; head before tail). A missing valid.txt or test.txt is an empty split.

    Raises:
      UserError: train.txt is missing or empty, or a row is malformed or names what the name files lack.
    """
    folder = Path(folder)
    splits: dict[str, _Rows] = {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        splits[split] = ([], 1) if split != "train" and not path.exists() else _read_rows(path)
    if not splits["train"][0]:
        raise UserError(f"{folder / 'train.txt'}: holds no triples; a graph needs training triples")
    named = [folder / "entity2id.txt", folder / "relation2id.txt"]
    if all(path.exists() for path in named):
        entities, relations = map(read_names, named)
        triples = _by_name_files(folder, splits, entities, relations)
    elif any(path.exists() for path in named):
        missing = next(path for path in named if not path.exists())
        raise UserError(f"{missing}: no such file; give entity2id.txt and relation2id.txt both or neither")
    else:
        entities, relations, triples = _by_appearance(splits)
    return KnowledgeGraph(folder.resolve().name, entities, relations, **triples)


def _read_rows(path: Path) -> _Rows:
    lines = read_lines(path)
    first = 1
    if lines and lines[0].strip().isdecimal():
        take_count(path, lines)
        first = 2
    body = lines[first - 1 :]
    # One separator a file: names may hold spaces where tabs separate.
    separator = "\t" if body and "\t" in body[0] else " "
    rows = []
    for number, line in enumerate(body, start=first):
        row = line.strip(" " if separator == "\t" else None).split(separator)
        if len(row) == 4 and row[3] == ".":
            row.pop()
        if len(row) != 3 or not all(row):
            kind = "tabs" if separator == "\t" else "single spaces"
            raise UserError(f"{path}:{number}: expected 'head relation tail' with {kind}, found {line[:60]!r}")
        rows.append(row)
    return rows, first


def _by_appearance(splits: dict[str, _Rows]) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    triples = {}
    for split, (rows, _) in splits.items():
        ids = [
            (
                entities.setdefault(head, len(entities)),
                relations.setdefault(relation, len(relations)),
                entities.setdefault(tail, len(entities)),
            )
            for head, relation, tail in rows
        ]
        triples[split] = np.array(ids, np.int32).reshape(-1, 3)
    return list(entities), list(relations), triples


def _by_name_files(
    folder: Path, splits: dict[str, _Rows], entities: list[str], relations: list[str]
) -> dict[str, np.ndarray]:
    all_rows = [row for rows, _ in splits.values() for row in rows]
    entity_tokens = {token for row in all_rows for token in (row[0], row[2])}
    entity_ids = _lookup(entities, entity_tokens)
    # Some releases name relations by numbers that are not their ids: there the entities decide.
    ids_written = not entity_tokens <= set(entities)
    relation_ids = _lookup(relations, {row[1] for row in all_rows}, ids_first=ids_written)
    triples = {}
    for split, (rows, first) in splits.items():
        path = folder / f"{split}.txt"
        ids = []
        for number, (head, relation, tail) in enumerate(rows, start=first):
            try:
                ids.append((entity_ids[head], relation_ids[relation], entity_ids[tail]))
            except KeyError as unknown:
                token, file = unknown.args[0], "entity2id.txt"
                if head in entity_ids and relation not in relation_ids:
                    file = "relation2id.txt"
                what = f"{token[:60]!r} is not in {file}; add it or remove both name files"
                raise UserError(f"{path}:{number}: {what}") from None
        array = np.array(ids, np.int64).reshape(-1, 3)
        check_ids(path, array, len(entities), len(relations), first)
        triples[split] = array.astype(np.int32)
    return triples


def _lookup(names: list[str], tokens: set[str], ids_first: bool = False) -> dict[str, int]:
    """Ids by token: whole numbers are ids if one is no name (or ``ids_first``), all else are names."""
    by_name = {name: index for index, name in enumerate(names)}
    numbers = all(read_whole_number(token) is not None for token in tokens)
    if numbers and (ids_first or not tokens <= by_name.keys()):
        return {token: int(token) for token in tokens}
    return by_name
