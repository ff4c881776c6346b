"""A graph with a fresh split by pairs of entities, as a folder of its own."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mocme_jax.data.features.feature_files import feature_paths
from mocme_jax.data.features.numeric_tables import numeric_source
from mocme_jax.data.features.text_features import DESCRIPTIONS_FILE, LABELS_FILE, RELATION_LABELS_FILE
from mocme_jax.data.graph.graph_folder import read_triples
from mocme_jax.data.graph.graph_writer import LAST_FILE, write_graph
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.mapped_triples import SUFFIX
from mocme_jax.data.graph.plain_layout import split_file
from mocme_jax.data.graph.splits import check_shares, split_off
from mocme_jax.data.graph.triple_keys import distinct_triples
from mocme_jax.data.whole_folders import Content, unfinished
from mocme_jax.errors import UserError

SHARE = 0.1
"""The share of a split that the graph does not have."""


def resplit(
    graph: KnowledgeGraph, *, dev: float | None = None, test: float | None = None, seed: int = 0
) -> KnowledgeGraph:
    """Splits all triples of a graph afresh.

    All triples between two entities, in both directions, come into one split. Every entity and relation that occurs in
    a triple occurs in train.

    Args:
      graph: the graph.
      dev: the share of the distinct triples that becomes valid. None: the share of all rows that the graph's valid
        split has, or ``SHARE`` if it is empty.
      test: the same for test.
      seed: of the split.

    Returns:
      The graph without repeated triples and without modalities. ``valid`` and ``test`` are smaller than asked where
      train needs the triples.

    Raises:
      UserError: the shares do not fit, or no triple can leave train.
    """
    sizes = {split: len(triples) for split, triples in graph.splits.items()}
    own = {split: size / sum(sizes.values()) or SHARE for split, size in sizes.items()}
    shares = {"test": own["test"] if test is None else test, "valid": own["valid"] if dev is None else dev}
    check_shares(shares)
    every = distinct_triples(np.concatenate([np.asarray(triples) for triples in graph.splits.values()]))
    return graph.replace(**split_off(every, shares, seed, by_pair=True), modalities=(), mapped=False)


def resplit_folder(
    data: Path,
    out: Path,
    *,
    dev: float | None = None,
    test: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    notify: Callable[[str], None] = print,
) -> None:
    """Writes a graph with a fresh split and everything that its features are read or made from.

    The files are copied, so that the new folder does not depend on the old one. Entities keep their ids, so the order
    of the rows of a feature matrix stays right.

    Args:
      data: the graph's folder.
      out: the folder to write into.
      dev, test, seed: see resplit.
      overwrite: replace what is there.
      notify: told in one line of each step.

    Raises:
      UserError: bad input, a file is in the way, or see resplit.
    """
    graph = read_triples(data, notify)
    files: dict[str, Content] = {name: partial(_copy, path) for name, path in _of_features(data, graph.name)}
    _refuse_others(data, out, graph.name, files, overwrite)
    new = resplit(graph, dev=dev, test=test, seed=seed)
    write_graph(new, out, files)
    rows, distinct = (sum(map(len, one.splits.values())) for one in (graph, new))
    every = np.concatenate(list(new.splits.values()))
    pairs = len(np.unique(np.sort(every[:, [0, 2]], axis=1), axis=0))
    notify(
        f"{graph.name}: {rows:,} triples, {rows - distinct:,} of them duplicates that are dropped; "
        f"{pairs:,} pairs of entities, each in one split"
    )
    counts = " / ".join(f"{len(triples):,} {split}" for split, triples in new.splits.items())
    notify(f"{out}: {counts} triples (seed {seed}); every entity and relation of valid and test occurs in train")
    if files:
        notify(f"copied with it: {', '.join(files)}")


def _of_features(data: Path, name: str) -> Iterator[tuple[str, Path]]:
    """The files that features of a folder are read or made from, by their names in a new folder."""
    for modality, path in feature_paths(data, name).items():
        # Named for the modality alone, because the new folder may have another name than the dataset.
        yield f"{modality}{path.suffix.lower()}", path
    numbers = numeric_source([data])
    texts = (data / file for file in (LABELS_FILE, DESCRIPTIONS_FILE, RELATION_LABELS_FILE))
    for path in (*texts, *([] if numbers is None else [numbers])):
        if path.exists():
            yield path.name, path


def _copy(path: Path, file: BinaryIO) -> None:
    with path.open("rb") as content:
        shutil.copyfileobj(content, file)


def _refuse_others(data: Path, out: Path, name: str, files: dict[str, Content], overwrite: bool) -> None:
    """Raises a UserError if the folder holds what must not be replaced, or what would be read with the new files."""
    if out.resolve() == data.resolve():
        raise UserError(f"{out}: is the folder of the graph itself; give another --out")
    if not out.is_dir():
        return
    if (out / f"train{SUFFIX}").exists() or split_file(out, "train") is not None:
        raise UserError(f"{out}: contains a graph in another layout; give another --out")
    broken_off = unfinished(out)
    if (out / LAST_FILE).exists() and not overwrite and LAST_FILE not in broken_off:
        raise UserError(f"{out / LAST_FILE}: already exists; give --overwrite or another --out")
    for _, path in _of_features(out, name):
        if path.name not in files:
            raise UserError(f"{path}: does not belong to {name}; remove it or give another --out")
