"""Shared candidates, and which of them are known to be true.

A step scores every query of the batch against the same columns: a pool of entities drawn anew each step, and
(by choice) the entities of the batch itself. Known true triples are masked exactly, within the compiled step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.data.known import known_tails, reciprocal

# Queries with more known tails than this get a bit set over all entities instead of a padded list: few queries can
# have many tails, so the bit sets stay small, and the lists short.
_LIST_WIDTH = 32


class KnownIndex(NamedTuple):
    """Known true tails of every training query, laid out for lookups within the compiled step.

    A group is a distinct (entity, relation in [0, 2R)), as in ``KnownTails``.

    Attributes:
      groups: int32 ``[T, 2]``, the group of each training triple for tail and for head prediction.
      starts, counts: int32 ``[G]``, where a group's tails lie; count is 0 for the groups kept as bits.
      tails: int32 ``[E]``, padded by the list width.
      bit_row: int32 ``[G]``, row of ``bits``, 0 (an empty row) for groups kept as lists.
      bits: uint32 ``[1 + H, ceil(N / 32)]``.
    """

    groups: jax.Array
    starts: jax.Array
    counts: jax.Array
    tails: jax.Array
    bit_row: jax.Array
    bits: jax.Array


def index_known(train: np.ndarray, num_entities: int, num_relations: int) -> KnownIndex:
    """Indexes the training triples by query.

    Args:
      train: int32 ``[T, 3]``, columns head, relation, tail.
      num_entities: N.
      num_relations: R.
    """
    known = known_tails([train], num_entities, num_relations)
    counts = np.diff(known.offsets)
    many = np.flatnonzero(counts > _LIST_WIDTH)
    bit_row = np.zeros(len(counts), np.int32)
    bit_row[many] = np.arange(1, len(many) + 1)
    bits = np.zeros((1 + len(many), -(-num_entities // 32)), np.uint32)
    row = np.repeat(bit_row, counts)
    tails = known.tails[row > 0]
    np.bitwise_or.at(bits, (row[row > 0], tails // 32), np.uint32(1) << (tails % 32).astype(np.uint32))
    return KnownIndex(
        groups=known.groups(reciprocal(train, num_relations)).reshape(2, -1).T.astype(np.int32),
        starts=known.offsets[:-1].astype(np.int32),
        counts=np.where(bit_row > 0, 0, counts).astype(np.int32),
        tails=np.concatenate([known.tails, np.zeros(_LIST_WIDTH, np.int32)]),
        bit_row=bit_row,
        bits=bits,
    )


def sample_pool(key: jax.Array, num_entities: int, size: int) -> jax.Array:
    """Distinct entities, each as likely as any other: one from each of ``size`` strata of the ids, or all if N fit.

    Strata make the sample distinct at a cost that does not grow with N, where a permutation would. They start at a
    random entity: where N / size is not whole some are wider than others, and a fixed start would draw the entities
    in those less often.

    Returns:
      int32 ``[min(size, N)]``, in no order.
    """
    size = min(size, num_entities)
    edges = np.linspace(0, num_entities, size + 1).astype(np.int64).astype(np.int32)
    first, width = edges[:-1], np.diff(edges)
    place_key, shift_key = jax.random.split(key)
    places = first + jax.random.randint(place_key, (size,), 0, width, dtype=jnp.int32)
    # Less N where past the end, so that no sum passes the range of int32.
    back = num_entities - jax.random.randint(shift_key, (), 0, num_entities, dtype=jnp.int32)
    return jnp.where(places >= back, places - back, places + (num_entities - back))


def first_occurrence(ids: jax.Array) -> jax.Array:
    """bool ``[U]``: True where an id of ``[U]`` appears for the first time."""
    order = jnp.argsort(ids, stable=True)
    ordered = ids[order]
    new = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
    return jnp.zeros(ids.shape, bool).at[order].set(new)


def known_columns(known: KnownIndex, groups: jax.Array, columns: jax.Array) -> jax.Array:
    """Which columns hold a known true tail of each query (its own answer among them).

    Args:
      known: from ``index_known``.
      groups: int32 ``[B]``, the queries' groups.
      columns: int32 ``[U]``, entity ids; of repeated ids only the first is marked in the lists' part.

    Returns:
      bool ``[B, U]``.
    """
    # Short lists: look each tail up among the sorted columns and mark where it stands.
    order = jnp.argsort(columns, stable=True)
    ordered = columns[order]
    steps = jnp.arange(_LIST_WIDTH)
    tails = known.tails[known.starts[groups][:, None] + steps]
    place = jnp.searchsorted(ordered, tails)
    found = (steps < known.counts[groups][:, None]) & (ordered[jnp.minimum(place, len(columns) - 1)] == tails)
    where = jnp.where(found & (place < len(columns)), order[jnp.minimum(place, len(columns) - 1)], len(columns))
    rows = jnp.arange(len(groups))[:, None]
    mask = jnp.zeros((len(groups), len(columns)), bool).at[rows, where].set(True, mode="drop")
    if known.bits.shape[0] == 1:
        return mask
    # Long lists: one bit an entity.
    words = known.bits[known.bit_row[groups][:, None], columns[None, :] // 32]
    return mask | ((words >> (columns % 32).astype(jnp.uint32)[None, :]) & 1).astype(bool)
