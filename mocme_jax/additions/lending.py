"""Lending: entities with few training triples borrow structure from entities with similar features.

The fewer triples an entity has, the less its row of the structure table has learned. The row of an entity without
triples was only pushed away from queries, so the rows of entities with similar features are a better guess. The changed
row is a running mean in which these neighbours count as ``share`` triples (shrinkage towards a prior mean; Efron and
Morris, JASA 1973). Only directions are averaged. Lengths are kept, because they express how certain an answer is.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
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
"""The length of a fully borrowed row, relative to the mean length of rows of entities in train.

Known answers are filtered, and only entities in train are known answers. An entity without triples is never filtered,
so the full length would rank it too high.
"""

_ROWS = 512
_GROUP = 64


class Lending(NamedTuple):
    """A table addition with the lenders of each of N entities.

    Attributes:
      ids: int32 ``[N, L]``, lenders: entities in train, never the entity itself.
      weights: float32 ``[N, L]``, summing to 1 per row; all 0 if no entity is similar.
      triples: float32 ``[N]``, the number of training triples of the entity.
      share: float32 scalar, the number of triples that the lenders count as.
      typical: float32 scalar, the mean length of the rows of entities in train; None before ``measured``.
    """

    ids: Any
    weights: Any
    triples: Any
    share: Any
    typical: Any = None

    def measured(self, structure: jax.Array) -> Lending:
        """Return the same with the typical length of a structure table ``[N, d]``."""
        seen = jnp.asarray(self.triples) > 0
        lengths = _lengths(structure)[:, 0]
        return self._replace(typical=jnp.sum(jnp.where(seen, lengths, 0)) / jnp.maximum(jnp.sum(seen), 1))

    def rows(self, before: Callable[[jax.Array], jax.Array], ids: jax.Array) -> jax.Array:
        """Return rows ``[n, d]`` of the structure table after lending.

        For an entity with n training triples, ``share / n`` times the mean of its lenders, scaled to the typical
        length, is added to its row, and the row keeps its length. For an entity without triples, the row becomes
        ``UNSEEN`` times that mean. Rows without similar entities stay the same.
        """
        lenders, weights, triples = (jnp.asarray(one)[ids] for one in (self.ids, self.weights, self.triples))
        own = before(ids)

        def add(number, mean):
            return mean + weights[:, number, None] * before(lenders[:, number])

        mean = jax.lax.fori_loop(0, lenders.shape[1], add, jnp.zeros_like(own))
        borrowed = self.typical * mean / jnp.maximum(_lengths(mean), 1e-12)
        mixed = own + (self.share / jnp.maximum(triples, 1))[:, None] * borrowed
        mixed = mixed * _lengths(own) / jnp.maximum(_lengths(mixed), 1e-12)
        lent = jnp.where((triples > 0)[:, None], mixed, UNSEEN * borrowed)
        return jnp.where(jnp.sum(weights, axis=1, keepdims=True) > 0, lent, own)

    def file(self) -> tuple[str, bytes]:
        """Return a file of all arrays but the share, and a digest.

        Finding lenders takes most of a model's loading time.
        """
        content, arrays = io.BytesIO(), {name: np.asarray(getattr(self, name)) for name in _KEPT}
        named: dict[str, Any] = {**arrays, "digest": np.frombuffer(_digest(arrays), np.uint8)}
        np.savez(content, **named)
        return FILE, content.getvalue()


# The arrays of the file, and their types.
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
    """Read the lenders from a run's folder; None if the file is missing, damaged or has another number of entities."""
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
    """Find the ``NEIGHBOURS`` most similar entities of every entity, by the sum of the modalities' cosines.

    All pairs are compared, ``_ROWS`` entities at a time: N^2 products of the feature width.

    Args:
      modalities: the feature modalities, as read.
      train: int ``[T, 3]``.
      entities: the number of entities N.
      share: see ``Lending``.

    Returns:
      The lenders; None if there are no features, or fewer than two entities in train.
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
    """Return the positions ``[n, count]`` of the highest values of each row ``[n, N]``, in ascending order.

    They lie in the groups with the highest maxima. One pass over these is faster than a partition of all values, which
    would take most of a model's loading time.
    """
    rows, width = values.shape
    groups = width // _GROUP
    if groups <= count:
        return np.sort(np.argpartition(values, width - count, axis=1)[:, width - count :], axis=1)
    # Columns after the last whole group are always compared.
    tops = values[:, : groups * _GROUP].reshape(rows, groups, _GROUP).max(axis=2)
    best = np.argpartition(tops, groups - count, axis=1)[:, groups - count :]
    inside = (best[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(groups * _GROUP, width), (rows, width - groups * _GROUP))
    places = np.concatenate([inside, rest], axis=1)
    found = np.take_along_axis(values, places, axis=1)
    kept = np.argpartition(found, found.shape[1] - count, axis=1)[:, found.shape[1] - count :]
    return np.sort(np.take_along_axis(places, kept, axis=1), axis=1)


def memory(entities: int) -> int:
    """Return the bytes on every device: lenders, their weights, and the numbers of triples, 4 bytes each."""
    return 4 * (2 * NEIGHBOURS + 1) * entities
