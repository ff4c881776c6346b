"""Lending: entities with few training triples borrow structure from entities with similar features.

The fewer triples an entity has, the less its row of the structure table has learned; without any, the row was only
pushed away from queries. The rows of entities with similar features are then the best guess. The changed row is a
running mean in which these neighbours count as ``share`` triples (shrinkage towards a prior mean; Efron and Morris,
JASA 1973). Only directions are averaged; lengths stay, because they say how sure an answer may be.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.data.features.similarity import NEIGHBOURS, SHARPNESS, joined_units
from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.data.readers.numpy_file import read_npz
from mocme_jax.errors import UserError

FILE = "lenders.npz"

UNSEEN = 0.7
"""The length of a row that is all lent, in mean lengths of the rows of entities that train shows.

Whoever train shows is ruled out as an answer where it is known; an entity without triples never is. A full length
would put it above too many.
"""

_ROWS = 512
_GROUP = 64


class Lending(NamedTuple):
    """A table addition: who lends to each of N entities.

    Attributes:
      ids: int32 ``[N, L]``, entities that train shows, never the entity itself.
      weights: float32 ``[N, L]``, summing to 1; all 0 where nobody is alike.
      triples: float32 ``[N]``, training triples of the entity.
      share: float32 scalar, how many triples its lenders count as.
    """

    ids: Any
    weights: Any
    triples: Any
    share: Any

    def change(self, structure: jax.Array) -> jax.Array:
        """The structure table ``[N, d]`` after lending.

        An entity of n training triples takes ``share / n`` of its lenders' mean, at a typical length, to its own row,
        and keeps its length. One of none takes ``UNSEEN`` of it alone. Where nobody is alike, rows stay.
        """
        ids, weights, triples, share = jax.tree.map(jnp.asarray, self)

        def add(number, mean):
            return mean + weights[:, number, None] * structure[ids[:, number]]

        mean = jax.lax.fori_loop(0, ids.shape[1], add, jnp.zeros_like(structure))
        seen = triples > 0
        lengths = _lengths(structure)
        typical = jnp.sum(jnp.where(seen[:, None], lengths, 0)) / jnp.maximum(jnp.sum(seen), 1)
        borrowed = typical * mean / jnp.maximum(_lengths(mean), 1e-12)
        mixed = structure + (share / jnp.maximum(triples, 1))[:, None] * borrowed
        mixed = mixed * lengths / jnp.maximum(_lengths(mixed), 1e-12)
        lent = jnp.where(seen[:, None], mixed, UNSEEN * borrowed)
        return jnp.where(jnp.sum(weights, axis=1, keepdims=True) > 0, lent, structure)

    def file(self) -> tuple[str, bytes]:
        """All but the share, and a digest: finding lenders is most of what loading a model takes."""
        content, arrays = io.BytesIO(), {name: np.asarray(getattr(self, name)) for name in _KEPT}
        named: dict[str, Any] = {**arrays, "digest": np.frombuffer(_digest(arrays), np.uint8)}
        np.savez(content, **named)
        return FILE, content.getvalue()


# The arrays of a file, and their types.
_KEPT = {"ids": np.int32, "weights": np.float32, "triples": np.float32}


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    found = hashlib.sha256()
    for name in _KEPT:
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.digest()


def _lengths(rows: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(rows * rows, axis=1, keepdims=True))


def read_lenders(workdir: Path, entities: int, share: float) -> Lending | None:
    """The lenders in a run's folder; None if the file is missing, damaged or of another number of entities."""
    try:
        arrays = read_npz(Path(workdir) / FILE, (*_KEPT, "digest"))
    except UserError:
        return None
    if arrays.keys() != {*_KEPT, "digest"} or arrays["digest"].tobytes() != _digest(arrays):
        return None
    ids, weights, triples = (arrays[name] for name in _KEPT)
    usable = (
        all(arrays[name].dtype == kind for name, kind in _KEPT.items())
        and ids.ndim == 2
        and ids.shape == weights.shape
        and triples.shape == (entities,)
        and len(ids) == entities
        and ids.size > 0
        and 0 <= ids.min() <= ids.max() < entities
        and bool(np.isfinite(weights).all() and np.isfinite(triples).all())
    )
    return Lending(ids, weights, triples, np.float32(share)) if usable else None


def find_lenders(modalities: Sequence[Modality], train: np.ndarray, entities: int, share: float) -> Lending | None:
    """The ``NEIGHBOURS`` most alike of every entity, by the sum of the modalities' cosines.

    A pass over all pairs, ``_ROWS`` entities at a time: N^2 products of the feature width.

    Args:
      modalities: one a feature modality, as read.
      train: int ``[T, 3]``.
      entities: N.
      share: see ``Lending``.

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
    return Lending(ids, weights, triples.astype(np.float32), np.float32(share))


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


def memory(entities: int) -> int:
    """Bytes on every device: lenders and their weights, and the number of triples, four each."""
    return 4 * (2 * NEIGHBOURS + 1) * entities
