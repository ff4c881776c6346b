"""What a cell of a study changes in the graph itself, beside config fields.

A cell's changes named ``graph.WORD`` are given to the study file's ``change_graph(graph, seed, WORD=...)``, which
returns another graph; `mocme_jax.studies.degraded_graph` has some.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mocme_jax.config import load_function
from mocme_jax.config_fields import Value
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.training.setup.builders import Dataset

PREFIX = "graph."


def fields_of(changes: Mapping[str, Value]) -> dict[str, Value]:
    """A cell's config fields."""
    return {path: value for path, value in changes.items() if not path.startswith(PREFIX)}


def words_of(changes: Mapping[str, Value]) -> dict[str, Any]:
    """What a cell gives to ``change_graph``."""
    return {path.removeprefix(PREFIX): value for path, value in changes.items() if path.startswith(PREFIX)}


def load_graph_change(path: Path, cells: Mapping[str, Mapping[str, Value]]) -> Callable[..., KnowledgeGraph] | None:
    """The ``change_graph`` of a study file, or None where no cell changes the graph.

    Raises:
      UserError: the file has none, or it takes other words than a cell gives.
    """
    wanted = {cell: words for cell, changes in cells.items() if (words := words_of(changes))}
    if not wanted:
        return None
    change_graph = load_function(path, "change_graph(graph, seed, ...)")
    for cell, words in wanted.items():
        try:
            json.dumps(words)
            inspect.signature(change_graph).bind(None, 0, **words)
        except TypeError as error:
            raise UserError(f"{path}: cell {cell} does not fit change_graph: {error}") from error
    return change_graph


def change_dataset(
    dataset: Dataset, change_graph: Callable[..., KnowledgeGraph], seed: int, words: Mapping[str, Value]
) -> Dataset:
    """The dataset with its graph changed; its parts tell of it, and what filters scores stays.

    Raises:
      UserError: the graph's triples stay on the disk, or the change cannot be made.
    """
    if dataset.graph.mapped:
        raise UserError(f"{dataset.graph.name}: a study that changes the graph needs its triples in memory")
    changed = change_graph(dataset.graph, seed, **words)
    return dataclasses.replace(dataset, graph=changed, parts=dataset.parts | {"graph change": json.dumps(words)})
