"""Shared candidates: a pool of entities that is drawn anew each step, and what is repeated among a step's columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


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
