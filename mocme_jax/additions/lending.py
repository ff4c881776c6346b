"""Whose structure an entity may borrow: those of the training triples that carry much the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mocme_jax.data.features.similarity import joined_units
from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.graph.knowledge_graph import Modality

NEIGHBOURS = 10
SHARPNESS = 4
"""The power of a similarity that is a lender's weight."""

_ROWS = 512
_GROUP = 64


class Lenders(NamedTuple):
    """Of N entities, each one's lenders.

    Attributes:
      ids: int32 ``[N, L]``, entities that train shows, never the entity itself.
      weights: float32 ``[N, L]``, summing to 1; all 0 where nobody is alike.
      triples: float32 ``[N]``, training triples of the entity.
    """

    ids: np.ndarray
    weights: np.ndarray
    triples: np.ndarray


def find_lenders(modalities: Sequence[Modality], train: np.ndarray, entities: int) -> Lenders | None:
    """The ``NEIGHBOURS`` most alike of every entity, by the sum of the modalities' cosines.

    A pass over all pairs, ``_ROWS`` entities at a time: N^2 products of the feature width.

    Args:
      modalities: one a feature modality, as read.
      train: int ``[T, 3]``.
      entities: N.

    Returns:
      The lenders, or None where there is no feature to tell who is alike or no other entity in train.
    """
    triples = np.bincount(train[:, [0, 2]].ravel(), minlength=entities)
    seen = np.flatnonzero(triples)
    count = min(NEIGHBOURS, len(seen) - 1)
    if not modalities or count < 1:
        return None
    units = joined_units([standardise(modality).features for modality in modalities])
    shown = units[seen]
    ids, weights = np.zeros((entities, count), np.int32), np.zeros((entities, count), np.float32)
    for start in range(0, entities, _ROWS):
        part = slice(start, min(start + _ROWS, entities))
        similar = units[part] @ shown.T
        own = np.flatnonzero(triples[part])
        similar[own, np.searchsorted(seen, start + own)] = -np.inf
        places = _highest(similar, count)
        ids[part] = seen[places]
        weights[part] = np.maximum(np.take_along_axis(similar, places, axis=1), 0) ** SHARPNESS
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return Lenders(ids, weights, triples.astype(np.float32))


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """Places ``[n, count]`` of the highest of each row ``[n, N]``, in ascending order.

    They lie in the groups with the highest maxima: one pass for these, where a partition of all values takes most of
    the time of a model's loading.
    """
    rows, width = values.shape
    groups = width // _GROUP
    if groups <= count:
        return np.sort(np.argpartition(values, width - count, axis=1)[:, width - count :], axis=1)
    # What no whole group holds is looked at in any case.
    tops = values[:, : groups * _GROUP].reshape(rows, groups, _GROUP).max(axis=2)
    best = np.argpartition(tops, groups - count, axis=1)[:, groups - count :]
    inside = (best[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(groups * _GROUP, width), (rows, width - groups * _GROUP))
    places = np.concatenate([inside, rest], axis=1)
    found = np.take_along_axis(values, places, axis=1)
    kept = np.argpartition(found, found.shape[1] - count, axis=1)[:, found.shape[1] - count :]
    return np.sort(np.take_along_axis(places, kept, axis=1), axis=1)
