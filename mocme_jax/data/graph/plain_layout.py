"""Graphs as plain ``train.txt``, ``valid.txt`` and ``test.txt`` files of names or ids.

See split_file for what else the files may be called, and plain_rows for what a row is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.audit.column_order import relation_column
from mocme_jax.data.graph.entity_names import numbers_are_names
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.name_files import NameFile, read_name_files
from mocme_jax.data.graph.openke_layout import SPLITS, check_ids
from mocme_jax.data.graph.plain_rows import PlainRows, read_rows
from mocme_jax.data.readers.text_lines import read_whole_number
from mocme_jax.errors import UserError

_STEMS = {"train": ("train",), "valid": ("valid", "dev", "val", "validation"), "test": ("test",)}
# LibKGE keeps the files of names that it read beside the same triples as ids, which count.
_CODED = ".del"
_ENDINGS = tuple(ending + packed for ending in (".txt", ".tsv", ".nt", "") for packed in ("", ".gz"))


def read_plain(folder: Path, notify: Callable[[str], None] = print) -> KnowledgeGraph:
    """Reads a graph without modalities; triples stay as released, duplicates and order included.

    With a file of names in the folder (see name_files), tokens are its names, or its ids where all of
    that kind are whole numbers and no name reads as one. Without, tokens that are exactly 0 to N-1 are the ids, and
    other names are numbered in order of first appearance (train, valid, test; head before tail). A missing file of
    valid or test is an empty split.

    Args:
      folder: of the files.
      notify: told in one line of a header, of another order of the columns (see relation_column), and of names that a
        file of names without a count lacks.

    Raises:
      UserError: train.txt is missing or empty, or a row is malformed or names what the name files lack.
    """
    paths = {split: split_file(folder, split) for split in SPLITS}
    train = paths["train"] or folder / "train.txt"
    files = {split: read_rows(path, notify) for split, path in {**paths, "train": train}.items() if path is not None}
    if not files["train"].rows:
        raise UserError(f"{train}: contains no triples; a graph needs training triples")
    coded = all(file.path.suffix == _CODED for file in files.values())
    if not coded and not any(file.ordered for file in files.values()):
        files = _in_order(files, notify)
    return _numbered(folder.resolve().name, files, read_name_files(folder), coded, notify)


def graph_of_names(name: str, rows: Mapping[str, list[list[str]]]) -> KnowledgeGraph:
    """A graph without modalities from rows (head, relation, tail) of names by split, with ids as of ``read_plain``."""
    files = {split: PlainRows(Path(name), part, range(len(part))) for split, part in rows.items()}
    return _numbered(name, files, [None, None], False, print)


def split_file(folder: Path, split: str) -> Path | None:
    """The file of a split, such as ``dev.tsv.gz`` for ``valid``; None where there is none.

    Raises:
      UserError: there are several.
    """
    coded = folder / f"{split}{_CODED}"
    if coded.exists():
        return coded
    paths = [folder / f"{stem}{ending}" for stem in _STEMS[split] for ending in _ENDINGS]
    # A folder may well be called train; anything else of such a name is read, or refused when it is opened.
    found = [path for path in paths if path.exists() and (path.suffix or path.is_file())]
    if len(found) > 1:
        raise UserError(f"{found[1]}: gives the {split} split, and so does {found[0].name}; remove one of the two")
    return found[0] if found else None


def _numbered(
    name: str,
    files: Mapping[str, PlainRows],
    named: Sequence[NameFile | None],
    coded: bool,
    notify: Callable[[str], None],
) -> KnowledgeGraph:
    """The graph of rows by split, with the ids of the files of names; ``coded`` if the rows hold ids in any case."""
    every = [row for file in files.values() for row in file.rows]
    tokens = dict.fromkeys(token for row in every for token in (row[0], row[2])), dict.fromkeys(row[1] for row in every)
    entity_ids_written = coded or _ids_written(named[0], tokens[0])
    # Some releases name relations by numbers that are not their ids: there the entities decide.
    ids_written = entity_ids_written, entity_ids_written or _ids_written(named[1], tokens[1])
    (entities, entity_ids), (relations, relation_ids) = (
        _ids_by_token(file, own, written and _are_whole(own), notify)
        for file, own, written in zip(named, tokens, ids_written, strict=True)
    )
    called = ["" if file is None else file.path.name for file in named]
    splits = {split: np.zeros((0, 3), np.int32) for split in SPLITS}
    for split, file in files.items():
        ids = []
        for number, (head, relation, tail) in zip(file.lines, file.rows, strict=True):
            try:
                ids.append((entity_ids[head], relation_ids[relation], entity_ids[tail]))
            except KeyError as unknown:
                token, of_relation = unknown.args[0], head in entity_ids and relation not in relation_ids
                what = f"{token[:60]!r} is not in {called[of_relation]}; add it or remove that file"
                raise UserError(f"{file.path}:{number}: {what}") from None
        array = np.array(ids, np.int64).reshape(-1, 3)
        check_ids(file.path, array, len(entities), len(relations), file.lines[0] if ids else 1, (called[0], called[1]))
        splits[split] = array.astype(np.int32)
    return KnowledgeGraph(name, entities, relations, **splits)


def _in_order(files: dict[str, PlainRows], notify: Callable[[str], None]) -> dict[str, PlainRows]:
    """The files with the relation in the middle, as far as names tell where it is."""
    names = [{row[column] for file in files.values() for row in file.rows} for column in range(3)]
    column = relation_column(names)
    if column in (None, 1):
        return files
    order = {0: (1, 0, 2), 2: (0, 2, 1)}[column]
    words = {0: "relation, head, tail", 2: "head, tail, relation"}[column]
    notify(
        f"{files['train'].path}: columns are read as {words}, because the other two share names; if that is wrong, "
        "start each file with the header head<TAB>relation<TAB>tail"
    )
    return {
        split: file._replace(rows=[[row[place] for place in order] for row in file.rows])
        for split, file in files.items()
    }


def _are_whole(tokens: Iterable[str]) -> bool:
    return all(read_whole_number(token) is not None for token in tokens)


def _ids_written(file: NameFile | None, tokens: Iterable[str]) -> bool:
    return file is not None and _are_whole(tokens) and not numbers_are_names(file.names)


def _ids_by_token(
    file: NameFile | None, tokens: dict[str, None], ids_written: bool, notify: Callable[[str], None]
) -> tuple[list[str], dict[str, int]]:
    """Names by id and ids by token; a file that is not counted may lack names, which come behind its own."""
    if file is None:
        numbers = list(map(str, range(len(tokens))))
        names = numbers if tokens.keys() == set(numbers) else list(tokens)
        return names, {name: index for index, name in enumerate(names)}
    if ids_written:
        return file.names, {token: int(token) for token in tokens}
    known = set(file.names)
    more = [] if file.counted else [token for token in tokens if token not in known]
    if more:
        some = ", ".join(repr(token[:60]) for token in more[:5])
        notify(
            f"{file.path}: {len(more):,} names of the triples are missing here; they get ids from {len(known):,} on: "
            f"{some}"
        )
    names = file.names + more
    return names, {name: index for index, name in enumerate(names)}
