"""Graphs as plain ``train.txt``, ``valid.txt`` and ``test.txt`` files of names or ids.

See split_files for what else the files may be called, and plain_rows for what a row is.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.entity_names import numbers_are_names
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.name_files import NameFile, read_name_files
from mocme_jax.data.graph.openke_layout import SPLITS, check_ids
from mocme_jax.data.graph.plain_rows import PlainRows, read_rows
from mocme_jax.data.graph.split_files import split_file
from mocme_jax.data.readers.text_lines import read_whole_number
from mocme_jax.errors import UserError


def read_plain(folder: Path, notify: Callable[[str], None] = print) -> KnowledgeGraph:
    """Reads a graph without modalities; triples stay as released, duplicates and order included.

    With files of names in the folder (see name_files), tokens are their names, or their ids where all of
    that kind are whole numbers and no name reads as one. Without, tokens that are exactly 0 to N-1 are the ids, and
    other names are numbered in order of first appearance (train, valid, test; head before tail). A missing file of
    valid or test is an empty split.

    Args:
      folder: of the files.
      notify: told in one line of a header, and of names that a file of names without a count lacks.

    Raises:
      UserError: train.txt is missing or empty, or a row is malformed or names what the name files lack.
    """
    folder = Path(folder)
    paths = {split: split_file(folder, split) for split in SPLITS}
    train = paths["train"] or folder / "train.txt"
    files = {split: read_rows(path, notify) for split, path in {**paths, "train": train}.items() if path is not None}
    if not files["train"].rows:
        raise UserError(f"{train}: holds no triples; a graph needs training triples")
    named = read_name_files(folder)
    entities, relations, triples = _by_tokens(files) if named is None else _by_name_files(*named, files, notify)
    splits = {split: triples.get(split, np.zeros((0, 3), np.int32)) for split in SPLITS}
    return KnowledgeGraph(folder.resolve().name, entities, relations, **splits)


def _by_tokens(files: dict[str, PlainRows]) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    every = [row for file in files.values() for row in file.rows]
    entities = _numbered(dict.fromkeys(token for row in every for token in (row[0], row[2])))
    relations = _numbered(dict.fromkeys(row[1] for row in every))
    entity_ids, relation_ids = ({name: index for index, name in enumerate(names)} for names in (entities, relations))
    triples = {}
    for split, file in files.items():
        ids = [(entity_ids[head], relation_ids[relation], entity_ids[tail]) for head, relation, tail in file.rows]
        triples[split] = np.array(ids, np.int32).reshape(-1, 3)
    return entities, relations, triples


def _numbered(tokens: dict[str, None]) -> list[str]:
    """Names by id: ascending if they are exactly 0 to N-1, otherwise as they come."""
    numbers = list(map(str, range(len(tokens))))
    return numbers if tokens.keys() == set(numbers) else list(tokens)


def _by_name_files(
    entity_file: NameFile, relation_file: NameFile, files: dict[str, PlainRows], notify: Callable[[str], None]
) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    every = [row for file in files.values() for row in file.rows]
    entity_tokens = dict.fromkeys(token for row in every for token in (row[0], row[2]))
    relation_tokens = dict.fromkeys(row[1] for row in every)
    ids_written = _are_whole(entity_tokens) and not numbers_are_names(entity_file.names)
    # Some releases name relations by numbers that are not their ids: there the entities decide.
    relation_ids_written = _are_whole(relation_tokens) and (ids_written or not numbers_are_names(relation_file.names))
    entities, entity_ids = _ids_by_token(entity_file, entity_tokens, ids_written, notify)
    relations, relation_ids = _ids_by_token(relation_file, relation_tokens, relation_ids_written, notify)
    file_names = entity_file.path.name, relation_file.path.name
    triples = {}
    for split, file in files.items():
        ids = []
        for number, (head, relation, tail) in enumerate(file.rows, start=file.first):
            try:
                ids.append((entity_ids[head], relation_ids[relation], entity_ids[tail]))
            except KeyError as unknown:
                token, of_relation = unknown.args[0], head in entity_ids and relation not in relation_ids
                what = f"{token[:60]!r} is not in {file_names[of_relation]}; add it or remove both name files"
                raise UserError(f"{file.path}:{number}: {what}") from None
        array = np.array(ids, np.int64).reshape(-1, 3)
        check_ids(file.path, array, len(entities), len(relations), file.first, file_names)
        triples[split] = array.astype(np.int32)
    return entities, relations, triples


def _are_whole(tokens: Iterable[str]) -> bool:
    return all(read_whole_number(token) is not None for token in tokens)


def _ids_by_token(
    file: NameFile, tokens: dict[str, None], ids_written: bool, notify: Callable[[str], None]
) -> tuple[list[str], dict[str, int]]:
    """Names by id and ids by token; a file that is not counted may lack names, which come behind its own."""
    if ids_written:
        return file.names, {token: int(token) for token in tokens}
    known = set(file.names)
    more = [] if file.counted else [token for token in tokens if token not in known]
    if more:
        some = ", ".join(repr(token[:60]) for token in more[:5])
        notify(
            f"{file.path}: lacks {len(more):,} names of the triples; they get the ids from {len(known):,} on: {some}"
        )
    names = file.names + more
    return names, {name: index for index, name in enumerate(names)}
