"""Graphs as plain ``train.txt``, ``valid.txt`` and ``test.txt`` files of names or ids; see plain_rows for a row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.entity_names import numbers_are_names
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.openke_layout import SPLITS, check_ids, read_names
from mocme_jax.data.graph.plain_rows import PlainRows, read_rows
from mocme_jax.data.readers.text_lines import read_whole_number
from mocme_jax.errors import UserError


def read_plain(folder: Path, notify: Callable[[str], None] = print) -> KnowledgeGraph:
    """Reads a graph without modalities; triples stay as released, duplicates and order included.

    With ``entity2id.txt`` and ``relation2id.txt`` in the folder, tokens are their names, or their ids where all of
    that kind are whole numbers and no name reads as one. Without, tokens that are exactly 0 to N-1 are the ids, and
    other names are numbered in order of first appearance (train, valid, test; head before tail). A missing valid.txt
    or test.txt is an empty split.

    Args:
      folder: of the files.
      notify: told of a header in one line.

    Raises:
      UserError: train.txt is missing or empty, or a row is malformed or names what the name files lack.
    """
    folder = Path(folder)
    splits: dict[str, PlainRows] = {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        splits[split] = PlainRows([], 1) if split != "train" and not path.exists() else read_rows(path, notify)
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
        entities, relations, triples = _by_tokens(splits)
    return KnowledgeGraph(folder.resolve().name, entities, relations, **triples)


def _by_tokens(splits: dict[str, PlainRows]) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    every = [row for rows, _ in splits.values() for row in rows]
    entities = _numbered(dict.fromkeys(token for row in every for token in (row[0], row[2])))
    relations = _numbered(dict.fromkeys(row[1] for row in every))
    entity_ids, relation_ids = ({name: index for index, name in enumerate(names)} for names in (entities, relations))
    triples = {}
    for split, (rows, _) in splits.items():
        ids = [(entity_ids[head], relation_ids[relation], entity_ids[tail]) for head, relation, tail in rows]
        triples[split] = np.array(ids, np.int32).reshape(-1, 3)
    return entities, relations, triples


def _numbered(tokens: dict[str, None]) -> list[str]:
    """Names by id: ascending if they are exactly 0 to N-1, otherwise as they come."""
    numbers = list(map(str, range(len(tokens))))
    return numbers if tokens.keys() == set(numbers) else list(tokens)


def _by_name_files(
    folder: Path, splits: dict[str, PlainRows], entities: list[str], relations: list[str]
) -> dict[str, np.ndarray]:
    every = [row for rows, _ in splits.values() for row in rows]
    entity_tokens = {token for row in every for token in (row[0], row[2])}
    relation_tokens = {row[1] for row in every}
    ids_written = _are_whole(entity_tokens) and not numbers_are_names(entities)
    # Some releases name relations by numbers that are not their ids: there the entities decide.
    relation_ids_written = _are_whole(relation_tokens) and (ids_written or not numbers_are_names(relations))
    entity_ids = _ids_by_token(entities, entity_tokens, ids_written)
    relation_ids = _ids_by_token(relations, relation_tokens, relation_ids_written)
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


def _are_whole(tokens: set[str]) -> bool:
    return all(read_whole_number(token) is not None for token in tokens)


def _ids_by_token(names: list[str], tokens: set[str], ids_written: bool) -> dict[str, int]:
    return {token: int(token) for token in tokens} if ids_written else {name: index for index, name in enumerate(names)}
