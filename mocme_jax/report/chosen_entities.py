"""Chosen entities: what each carries, what it looks like, how its test queries are answered."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.report.answered_queries import LISTED, MOST_QUERIES, known_answers, queries_of
from mocme_jax.report.entity_media import EntityMedia
from mocme_jax.report.run_measurements import Measured

COUNT = 6
_NOTHING: Mapping[int, int] = MappingProxyType({})


def choose(
    measured: Measured, keys: Sequence[str], shown: Mapping[int, int] = _NOTHING, count: int = COUNT
) -> list[int]:
    """Ids of the entities asked for, or of some that test asks about, in turn from the most frequent patterns.

    Args:
      keys: names that are asked for; none for this choice. It looks at no answer.
      shown: how many kinds of files entities have, by id; those with most come first, then those with most queries,
        then those with most facts.
      count: how many.
    """
    if keys:
        return list(dict.fromkeys(measured.model.entities.ids(keys).tolist()))
    queries, facts = _queries(measured), _facts(measured)
    kinds = np.array([shown.get(index, 0) for index in range(len(facts))])
    order = np.lexsort((-facts, -np.minimum(queries, MOST_QUERIES), -kinds, queries == 0)).tolist()
    patterns, numbers = np.unique(np.asarray(measured.patterns, object).astype(str), return_counts=True)
    frequent = patterns[np.argsort(-numbers, kind="stable")].tolist()
    queues = [[i for i in order if measured.patterns[i] == pattern][:count] for pattern in frequent[:count]]
    kept = [i for turn in itertools.zip_longest(*queues) for i in turn if i is not None]
    # Those without a query or a file are taken where there are no others.
    return sorted(kept, key=lambda index: (queries[index] == 0, -kinds[index]))[:count]


def chosen_entities(measured: Measured, keys: Sequence[str], media: EntityMedia) -> list[dict[str, Any]]:
    """Of each chosen entity what it is, its files, and its first test queries with their answers.

    Args:
      keys: names that were asked for; none for the report's own choice.
      media: of the entities.
    """
    names, readable, facts = measured.model.entities.names, measured.model.entities.readable, _facts(measured)
    rows = [
        {
            "label": readable[index],
            "name": names[index],
            "facts": int(facts[index]),
            "pattern": measured.patterns[index],
            "media": media.of(index),
            "queries": queries_of(measured, index),
        }
        for index in choose(measured, keys, media.kinds())
    ]
    # Cards of one height stand beside each other.
    return sorted(rows, key=lambda row: -len(row["queries"]))


def _queries(measured: Measured) -> np.ndarray:
    """Distinct test queries about each entity whose known answers leave room for others: int ``[N]``."""
    asked = reciprocal(np.asarray(measured.model.graph.test), len(measured.model.relations))
    pairs = np.unique(asked[:, :2], axis=0)
    return np.bincount(pairs[known_answers(measured, pairs) < LISTED, 0], minlength=len(measured.patterns))


def _facts(measured: Measured) -> np.ndarray:
    """Training triples of each entity, at either end: int ``[N]``."""
    train = np.asarray(measured.model.graph.train)
    return np.bincount(train[:, [0, 2]].ravel(), minlength=len(measured.patterns))
