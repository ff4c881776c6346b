"""One device's part of what every device holds whole, under the named axis."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

AXIS = "devices"

# Encoded entities are padded to a multiple of this on one device too, so that means over them are means over the same
# rows on 1, 2, 4 or 8.
_ROWS = 8


def share(array: jax.Array, devices: int) -> jax.Array:
    """This device's rows of an array that every device holds whole; rows divide by the devices."""
    rows = len(array) // devices
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(AXIS) * rows, rows)


def padded(array: jax.Array, devices: int) -> jax.Array:
    """Repeats the first row until the rows divide by the devices, and by 8."""
    extra = -len(array) % math.lcm(_ROWS, devices)
    return jnp.concatenate([array, jnp.broadcast_to(array[:1], (extra, *array.shape[1:]))])


def dropout(key: jax.Array, rows: jax.Array, array: jax.Array, chance: float) -> jax.Array:
    """``[n, ...]`` with components hidden at random and the rest scaled up (Srivastava et al., JMLR 2014).

    Each row draws by its own key, its place in the whole batch ``rows [n]``, so that draws do not depend on the
    devices.
    """
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
    kept = jax.vmap(lambda one: jax.random.bernoulli(one, 1 - chance, array.shape[1:]))(keys)
    return jnp.where(kept, array / (1 - chance), 0)
