"""Collective operations under the named axis of devices: a device's share of an array, all-gather, and sums.

Programs are written as the work of one device, and ``mesh`` runs them over several. The number of devices is a plain
argument, because shapes depend on it.
"""

import math

import jax

from mocme_jax.method.across import Across

AXIS = "devices"
# The axis of seeds that are trained together, as lanes of one program.
SEEDS = "seeds"

# Sharded arrays are padded to a multiple of this, also on one device, so that their means are over the same rows on 1,
# 2, 4 or 8 devices.
_ROWS = 8


def padded_size(rows: int, devices: int) -> int:
    """Return the smallest number that is at least ``rows`` and divides by the number of devices and by 8."""
    unit = math.lcm(_ROWS, devices)
    return -(-rows // unit) * unit


def share(array: jax.Array, devices: int) -> jax.Array:
    """Return this device's rows of a replicated array. The rows must divide by the number of devices."""
    rows = len(array) // devices
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(AXIS) * rows, rows)


def gathered(rows: jax.Array) -> jax.Array:
    """All-gather the rows of all devices, in the order of the devices."""
    return jax.lax.all_gather(rows, AXIS, tiled=True)


def summed_share(array: jax.Array) -> jax.Array:
    """Sum an array over the devices, and return this device's rows of the sum."""
    return jax.lax.psum_scatter(array, AXIS, scatter_dimension=0, tiled=True)


def across_devices(devices: int) -> Across:
    """Make the ``Across`` of devices that each hold some columns of all rows, and an equal share of the rows."""
    return Across(
        sum=lambda array: jax.lax.psum(array, AXIS),
        max=lambda array: jax.lax.pmax(array, AXIS),
        own_sum=summed_share,
        own=lambda array: share(array, devices),
        everyone=gathered,
    )
