"""Tables with one row per entity: replicated on every device, or sharded by rows.

A sharded table of N rows is padded to D * S rows, of which device i holds those from i * S. To look rows up, ids are
all-gathered, each device selects the rows that it holds, and a reduce-scatter returns the rows. Only requested rows are
sent, never the table.
"""

import jax
import jax.numpy as jnp

from mocme_jax.parallel.device_axis import AXIS, gathered, summed_share


def take(table: jax.Array, ids: jax.Array, split: bool) -> jax.Array:
    """Look up rows of a table by this device's ids.

    Args:
      table: ``[N, ...]``, or this device's ``[S, ...]`` if sharded.
      ids: int ``[n]``.
      split: whether the table is sharded.

    Returns:
      ``[n, ...]``.
    """
    if not split:
        return table[ids]
    return summed_share(_held(table, gathered(ids)))


def take_everywhere(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Look up rows ``[n, ...]`` of a sharded table by ids ``[n]`` that are the same on every device."""
    return jax.lax.psum(_held(table, ids), AXIS)


def held_places(ids: jax.Array, rows: int) -> jax.Array:
    """Return the positions of ids ``[n]`` among this device's ``rows``; ``rows`` for ids on other devices."""
    places = ids - jax.lax.axis_index(AXIS).astype(ids.dtype) * rows
    return jnp.where((places >= 0) & (places < rows), places, rows)


def _held(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Return the rows that this device holds, and 0 for the others, in a type that can be summed."""
    places = held_places(ids, len(table))
    held = (places < len(table)).reshape(-1, *(1,) * (table.ndim - 1))
    rows = table[jnp.minimum(places, len(table) - 1)]
    # Selected, not multiplied by 0, because unused rows may hold NaN.
    kind = jnp.int8 if table.dtype == bool else table.dtype
    return jnp.where(held, rows.astype(kind), 0)
