"""A graph from what a caller holds: tables, arrays or tuples of triples, and what entities carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mocme_jax.data.features.features_in_memory import modalities_of
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, make_modality
from mocme_jax.data.graph.plain_layout import graph_of_names
from mocme_jax.data.graph.plain_rows import order_of
from mocme_jax.data.graph.splits import check_shares, split_off
from mocme_jax.errors import UserError


def graph_of_rows(
    triples: Any,
    valid: Any,
    test: Any,
    features: Mapping[str, Any] | None,
    encoders: Mapping[str, str] | None,
    name: str,
    time: Any,
    by_pair: bool,
    seed: int,
    notify: Callable[[str], None],
) -> KnowledgeGraph:
    """What ``KnowledgeGraph.from_triples`` returns; see there."""
    shares = {split: part for split, part in (("test", test), ("valid", valid)) if isinstance(part, float | int)}
    check_shares(shares)
    given = {"train": triples, "valid": valid, "test": test}
    rows = {split: names_of(part, split) for split, part in given.items() if part is not None and split not in shares}
    if not rows["train"]:
        raise UserError("triples: none were given; a graph needs training triples")
    graph = graph_of_names(name, rows)
    if time is not None and not shares:
        raise UserError("time is used only to split off a share; give valid=0.1 or test=0.1")
    if time is None:
        graph = graph.replace(**split_off(graph.train, shares, seed, by_pair=by_pair))
    else:
        graph = graph.replace(**_latest(graph.train, shares, _times(triples, time, len(graph.train))))
    return graph.replace(modalities=modalities_of(features or {}, graph.entities, encoders or {}, notify))


def names_of(triples: Any, what: str = "triples") -> list[list[str]]:
    """Rows (head, relation, tail) of names, from a table with named columns, an array ``[T, 3]`` or tuples.

    A table (a DataFrame of pandas or polars) needs columns called head, relation and tail, or subject, predicate and
    object, or the like; others are ignored. Of a table of three columns with other names, they are taken in this order.

    Raises:
      UserError: not three columns, or a missing value.
    """
    if hasattr(triples, "columns"):
        columns = [str(column) for column in triples.columns]
        order = order_of(columns)
        if order is None and len(columns) != 3:
            raise UserError(f"{what}: the columns are {', '.join(columns)}; name three of them head, relation and tail")
        table = triples.to_numpy()[:, order or [0, 1, 2]]
        rows = table.tolist()
    else:
        rows = triples.tolist() if isinstance(triples, np.ndarray) else [tuple(row) for row in triples]
    found = []
    for number, row in enumerate(rows):
        if not isinstance(row, list | tuple) or len(row) != 3:
            raise UserError(f"{what}: row {number}: expected head, relation, tail, found {str(row)[:60]}")
        found.append([_name(value, f"{what}: row {number}") for value in row])
    return found


def _name(value: Any, where: str) -> str:
    if isinstance(value, float) and value.is_integer():
        raise UserError(f"{where} contains {value}; ids are whole numbers: convert the column to integers")
    text = "" if value is None or isinstance(value, float) else str(value).strip()
    if not text:
        raise UserError(f"{where} lacks a value ({value!r})")
    return text


def _latest(train: np.ndarray, shares: Mapping[str, float], times: np.ndarray) -> dict[str, np.ndarray]:
    """The splits by name: the latest triples ``[T, 3]``, the latest of the others, and what is left as ``train``."""
    total, splits = len(train), {}
    for split, share in shares.items():
        late = times > np.sort(times)[-1 - round(share * total)]
        if not late.any():
            raise UserError(
                f"{split}: no triples are later than all others; too many times are equal: give a larger share"
            )
        train, splits[split], times = train[~late], train[late], times[~late]
    return {"train": train, **splits}


def _times(triples: Any, time: Any, count: int) -> np.ndarray:
    """The times of the triples ``[T]``: a column of their table by name, or as they are given."""
    if isinstance(time, str):
        if time not in list(getattr(triples, "columns", ())):
            raise UserError(f"time is {time!r}, but triples have no column of this name")
        time = triples[time]
    times = np.asarray(time)
    if times.shape != (count,):
        raise UserError(f"time has shape {list(times.shape)} for {count} triples; give one time per triple")
    return times


def graph_of_pykeen(dataset: Any, name: str = "") -> KnowledgeGraph:
    """What ``KnowledgeGraph.from_pykeen`` returns; see there."""
    parts = {"train": dataset.training, "valid": dataset.validation, "test": dataset.testing}
    names = []
    for ids in (parts["train"].entity_to_id, parts["train"].relation_to_id):
        if sorted(ids.values()) != list(range(len(ids))):
            raise UserError("the dataset's ids are not 0 to N-1; renumber its entities and relations")
        names.append(sorted(ids, key=ids.__getitem__))
    splits = {}
    for split, factory in parts.items():
        rows = np.zeros((0, 3)) if factory is None else factory.mapped_triples
        splits[split] = np.asarray(rows, np.int32).reshape(-1, 3)
    modalities = ()
    if (literals := getattr(parts["train"], "numeric_literals", None)) is not None:
        modalities = (make_modality("numeric", np.asarray(literals, np.float32)),)
    return KnowledgeGraph(name or type(dataset).__name__, *names, **splits, modalities=modalities)
