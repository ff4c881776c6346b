"""Tables with a row an entity: whole on every device, or split by rows over the devices.

A split table of N rows is filled up to D * S rows, of which device i holds those from i * S on. To look rows up, ids
travel to all devices, each takes those it holds, and a sum that leaves every device its own share brings the rows back:
only the rows that were asked for travel, never the table.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mocme_jax.parallel.device_axis import AXIS, gathered, summed_share


def take(table: jax.Array, ids: jax.Array, split: bool) -> jax.Array:
    """Rows ``[n, ...]`` of a table ``[N, ...]``, or ``[S, ...]`` where it is split, by this device's ids ``[n]``."""
    if not split:
        return table[ids]
    return summed_share(_held(table, gathered(ids)))


def take_everywhere(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows ``[n, ...]`` of a split table by ids ``[n]`` that are the same on every device."""
    return jax.lax.psum(_held(table, ids), AXIS)


def held_places(ids: jax.Array, rows: int) -> jax.Array:
    """Where ids ``[n]`` lie among this device's ``rows``; ``rows`` itself for those that another device holds."""
    places = ids - jax.lax.axis_index(AXIS).astype(ids.dtype) * rows
    return jnp.where((places >= 0) & (places < rows), places, rows)


def _held(table: jax.Array, ids: jax.Array) -> jax.Array:
    """The rows that this device holds, 0 for the others, in a type that can be summed."""
    places = held_places(ids, len(table))
    held = (places < len(table)).reshape(-1, *(1,) * (table.ndim - 1))
    rows = table[jnp.minimum(places, len(table) - 1)]
    # Chosen, not multiplied by 0: rows that nobody has may hold NaN.
    kind = jnp.int8 if table.dtype == bool else table.dtype
    return jnp.where(held, rows.astype(kind), 0)
