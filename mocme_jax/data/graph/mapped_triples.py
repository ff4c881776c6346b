"""Graphs whose triples stay on the disk: the names of the OpenKE layout, and triples as arrays to be mapped.

``train_triples.npy``, ``valid_triples.npy`` and ``test_triples.npy`` are int32 ``[T, 3]``, columns head, relation,
tail. A process that is one of several then holds no more of them than it needs.
"""

from functools import partial
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.name_files import NAME_FILES, as_name_file, read_names
from mocme_jax.data.graph.openke_layout import SPLITS
from mocme_jax.data.graph.triple_keys import pieces
from mocme_jax.data.readers.numpy_file import read_npy
from mocme_jax.data.whole_folders import Content, write_together
from mocme_jax.errors import UserError

SUFFIX = "_triples.npy"


def read_mapped(folder: Path) -> KnowledgeGraph:
    """Reads a graph's names, and maps its triples.

    Raises:
      UserError: a file is missing, malformed or truncated, names an id outside the names, or train is empty.
    """
    names = [read_names(folder / file).names for file in NAME_FILES]
    splits = {split: _map_triples(folder / f"{split}{SUFFIX}", *map(len, names)) for split in SPLITS}
    if not len(splits["train"]):
        raise UserError(f"{folder / ('train' + SUFFIX)}: contains no triples; a graph needs training triples")
    return KnowledgeGraph(folder.resolve().name, *names, **splits, mapped=True)


def write_mapped(folder: Path, graph: KnowledgeGraph) -> list[Path]:
    """Writes a graph's names and triples so that `read_mapped` reads them, and returns the files.

    Raises:
      UserError: see ``as_name_file`` and ``write_together``.
    """
    tables = zip(NAME_FILES, (graph.entities, graph.relations), strict=True)
    writers: dict[str, Content] = {file: as_name_file(file, names) for file, names in tables}
    for split, triples in graph.splits.items():
        writers[f"{split}{SUFFIX}"] = partial(np.save, arr=triples)
    return write_together(folder, writers)


def _map_triples(path: Path, entities: int, relations: int) -> np.ndarray:
    if not path.exists():
        raise UserError(f"{path}: no such file; a split without triples is an array of shape (0, 3)")
    triples = read_npy(path)
    if triples.ndim != 2 or triples.shape[1] != 3 or triples.dtype != np.int32:
        raise UserError(f"{path}: expected int32 [triples, 3], got {triples.dtype} {list(triples.shape)}")
    first = 0
    for piece in pieces(triples):
        bad = np.flatnonzero(((piece < 0) | (piece >= [entities, relations, entities])).any(axis=1))
        if len(bad):
            raise UserError(
                f"{path}: row {first + bad[0]} is {piece[bad[0]].tolist()} (head, relation, tail), but there are "
                f"{entities:,} entities and {relations:,} relations"
            )
        first += len(piece)
    return triples
