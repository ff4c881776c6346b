"""A step's candidates: a pool of entities that is drawn anew and shared by the batch, and which device scores which.

Queries are all-gathered, candidates stay sharded: every device scores the whole batch's queries against its own share
of the columns, so that neither encoded candidates nor scores are ever gathered, and a column costs the same on one
device as on many.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.egns import guided_pool
from mocme_jax.parallel.device_axis import padded_size, share


class Columns(NamedTuple):
    """The batch's heads and its tails, those of held-out triples, and the pool: one list, the same on every device.

    Attributes:
      ids: int32 ``[2B + C]``, filled up so that the pool divides by the devices, and by 8.
      places: int32 ``[n]``, this device's places in the list: its heads, its tails, its heads and its tails of
        held-out triples, its share of the pool.
      scored: bool ``[n]``, which of them are candidates: not what stands further ahead in the list, nor fillings.
    """

    ids: jax.Array
    places: jax.Array
    scored: jax.Array


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


def pool_covers(pool: int, entities: int) -> bool:
    """Whether every entity is a candidate of every step; a device then scores its own rows of all entities."""
    return pool >= entities


def choose_columns(
    key: jax.Array,
    batch: jax.Array,
    entropy: jax.Array | None,
    *,
    entities: int,
    pool: int,
    in_batch: bool,
    devices: int,
    held: int = 0,
) -> Columns:
    """Draws the pool, and shares the columns out.

    Args:
      batch: int32 ``[B, 3]``, the whole batch's triples.
      entropy: ``[N]`` for a pool that is guided by it, see ``guided_pool``; None for a uniform one.
      pool: entities to draw, or all in their order.
      held: how many triples, the last of the batch, are held out.
      in_batch: whether heads and tails are candidates; where the pool is all, they are so anyway.
    """
    size, everything = len(batch), pool_covers(pool, entities)
    count = entities if everything else pool
    filled = padded_size(count, devices)
    if everything:
        drawn = jnp.minimum(jnp.arange(filled, dtype=jnp.int32), entities - 1)
    else:
        chosen = sample_pool(key, entities, pool) if entropy is None else guided_pool(key, entropy, pool)
        drawn = jnp.resize(chosen, (filled,))
    train = size - held
    # A device's places must ascend: ``known_columns`` marks the first column of an entity, which is the one scored.
    ends = [batch[rows, end] for rows in (slice(train), slice(train, size)) for end in (0, 2)]
    ids = jnp.concatenate([*ends, drawn])
    parts = ((0, train), (train, train), (2 * train, held), (2 * train + held, held), (2 * size, filled))
    places = jnp.concatenate([share(first + jnp.arange(rows), devices) for first, rows in parts])
    scored = places < 2 * size + count
    if everything or not in_batch:
        return Columns(ids, places, scored & (places >= 2 * size))
    return Columns(ids, places, scored & first_occurrence(ids)[places])


def first_occurrence(ids: jax.Array) -> jax.Array:
    """Bool ``[U]``: True where an id of ``[U]`` appears for the first time."""
    order = jnp.argsort(ids, stable=True)
    ordered = ids[order]
    new = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
    return jnp.zeros(ids.shape, bool).at[order].set(new)
