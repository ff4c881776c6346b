"""The candidates of a training step: a random pool of entities shared by the batch, and its distribution over devices.

Queries are all-gathered; candidates stay sharded. Every device scores the queries of the whole batch against its own
share of the columns. Neither encoded candidates nor scores are gathered, and a column costs the same on one device as
on many.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.egns import guided_pool
from mocme_jax.parallel.device_axis import padded_size, share


class Columns(NamedTuple):
    """The list of candidates, which is the same on every device, and this device's share of it.

    The list holds the batch's heads, its tails, and the pool.

    Attributes:
      ids: int32 ``[2B + C]``, entities. The pool is padded to divide by the number of devices, and by 8.
      places: int32 ``[n]``, this device's positions in the list: its heads, its tails, and its share of the pool.
      scored: bool ``[n]``, whether the position is a candidate. Entities that occur earlier in the list and padding are
        not.
    """

    ids: jax.Array
    places: jax.Array
    scored: jax.Array


def sample_pool(key: jax.Array, num_entities: int, size: int) -> jax.Array:
    """Sample distinct entities, each with the same probability: one from each of ``size`` strata of the ids.

    With strata, the sample is distinct at a cost that does not grow with N, unlike a permutation. Strata start at a
    random entity: if N / size is not an integer, some are wider than others, and with a fixed start their entities
    would be drawn less often.

    Args:
      key: PRNG key.
      num_entities: the number of entities N.
      size: the number of entities to sample; all if there are no more.

    Returns:
      int32 ``[min(size, N)]``, in no particular order.
    """
    size = min(size, num_entities)
    edges = np.linspace(0, num_entities, size + 1).astype(np.int64).astype(np.int32)
    first, width = edges[:-1], np.diff(edges)
    place_key, shift_key = jax.random.split(key)
    places = first + jax.random.randint(place_key, (size,), 0, width, dtype=jnp.int32)
    # Wraps around at N without a sum that overflows int32.
    back = num_entities - jax.random.randint(shift_key, (), 0, num_entities, dtype=jnp.int32)
    return jnp.where(places >= back, places - back, places + (num_entities - back))


def pool_covers(pool: int, entities: int) -> bool:
    """Return whether the pool contains all entities. Each device then scores its own rows of all entities."""
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
) -> Columns:
    """Draw the pool, and distribute the columns over the devices.

    Args:
      key: PRNG key.
      batch: int32 ``[B, 3]``, the triples of the whole batch.
      entropy: ``[N]`` for a guided pool (see ``guided_pool``); None for a uniform one.
      entities: the number of entities N.
      pool: the number of entities to draw. If it is at least N, all entities in order.
      in_batch: whether the batch's heads and tails are candidates. If the pool contains all entities, they are anyway.
      devices: the number of devices.
    """
    size, everything = len(batch), pool_covers(pool, entities)
    count = entities if everything else pool
    filled = padded_size(count, devices)
    if everything:
        drawn = jnp.minimum(jnp.arange(filled, dtype=jnp.int32), entities - 1)
    else:
        chosen = sample_pool(key, entities, pool) if entropy is None else guided_pool(key, entropy, pool)
        drawn = jnp.resize(chosen, (filled,))
    # Positions of a device must ascend: ``known_columns`` marks the first column of an entity, which is the scored one.
    ids = jnp.concatenate([batch[:, 0], batch[:, 2], drawn])
    parts = ((0, size), (size, size), (2 * size, filled))
    places = jnp.concatenate([share(first + jnp.arange(rows), devices) for first, rows in parts])
    scored = places < 2 * size + count
    if everything or not in_batch:
        return Columns(ids, places, scored & (places >= 2 * size))
    return Columns(ids, places, scored & first_occurrence(ids)[places])


def first_occurrence(ids: jax.Array) -> jax.Array:
    """Return whether each id of ``[U]`` occurs for the first time, bool ``[U]``."""
    order = jnp.argsort(ids, stable=True)
    ordered = ids[order]
    new = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
    return jnp.zeros(ids.shape, bool).at[order].set(new)
