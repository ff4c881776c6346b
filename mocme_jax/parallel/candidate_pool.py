"""Shared candidates: a pool of entities that is drawn anew each step, and what is repeated among a step's columns.

The pool is drawn at random, or guided by entropy: entities of which the model is unsure are drawn more often.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.parallel.device_axis import AXIS

# How far an entity's running mean goes towards the mean of a step.
PACE = 0.2


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


class Seen(NamedTuple):
    """What a step has seen of n candidates of this device.

    Attributes:
      ids: int32 ``[n]``.
      entropy: ``[n]``, mean entropy in bits of the model's belief in it, over the queries that it is a negative of.
      counts: bool ``[n]``, whether there are any; of an entity that stands twice, one column counts.
    """

    ids: jax.Array
    entropy: jax.Array
    counts: jax.Array


def guided_pool(key: jax.Array, entropy: jax.Array, size: int, even: float) -> jax.Array:
    """Distinct entities, drawn without replacement with odds ``even + (1 - even) * entropy / mean entropy``.

    The greatest of log odds + Gumbel noise are such a sample (Efraimidis and Spirakis, 2006). An entity's noise is its
    own, so that a rounding error in one's odds changes no other's place.

    Args:
      key: of the draw.
      entropy: ``[N]``, not negative; of all 0 the sample is uniform.
      size: C <= N.
      even: in [0, 1], the uniform part.

    Returns:
      int32 ``[C]``, in no order.
    """
    mean = jnp.mean(entropy)
    odds = even + (1 - even) * jnp.where(mean > 0, entropy / jnp.where(mean > 0, mean, 1), 1)
    return jax.lax.top_k(jnp.log(odds) + jax.random.gumbel(key, entropy.shape), size)[1].astype(jnp.int32)


def remembered(entropy: jax.Array, seen: Seen) -> jax.Array:
    """The running means ``[N]`` after a step; every device has seen columns of its own, all get the same."""
    steps = jnp.where(seen.counts, PACE * (seen.entropy - entropy[seen.ids]), 0)
    return entropy + jax.lax.psum(jnp.zeros_like(entropy).at[seen.ids].add(steps), AXIS)


def first_occurrence(ids: jax.Array) -> jax.Array:
    """Bool ``[U]``: True where an id of ``[U]`` appears for the first time."""
    order = jnp.argsort(ids, stable=True)
    ordered = ids[order]
    new = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
    return jnp.zeros(ids.shape, bool).at[order].set(new)
