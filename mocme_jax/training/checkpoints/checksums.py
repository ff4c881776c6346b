"""Checksums of arrays, computed on their devices.

The checksum of an array is ``sum_i bits_i * (2 * mix(i) + 1) mod 2^32`` over its elements in row-major order, where
``bits_i`` are the element's bits as a 32-bit number. The factor is odd, so a single flipped bit always changes the sum.
Zeros add nothing, and the sum does not depend on how the array is sharded.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.training.shuffling import mixed


def checksums(tree: Any, table: tuple[str, int] | None) -> tuple[dict[str, int], bool]:
    """Compute the checksum of every array by its path, and whether all floating-point elements are finite.

    Args:
      tree: a tree of arrays, on one device or sharded over the devices of one mesh.
      table: a name and a number of rows. Of arrays with that name in their path and at least that many rows, only the
        first rows count, because the others are padding. None: all rows count.
    """
    leaves = arrays_by_path(tree)
    rows = tuple(table[1] if table and is_table(path, leaf, table) else None for path, leaf in leaves.items())
    sharding = next(iter(leaves.values())).sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        # Replicated, because every process reads it.
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.P())
    sums, finite = _compiled(rows, sharding)(tuple(leaves.values()))
    return dict(zip(leaves, np.asarray(sums).tolist(), strict=True)), bool(finite)


def arrays_by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their paths, such as ``params/structure``."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def is_table(path: str, leaf: Any, table: tuple[str, int] | None) -> bool:
    """Return whether an array is a table of that name with at least that number of rows."""
    return table is not None and table[0] in path.split("/") and tuple(leaf.shape[:1]) >= (table[1],)


@functools.cache
def _compiled(rows: tuple[int | None, ...], sharding: jax.sharding.Sharding):
    def everything(leaves):
        sums = [_checksum(leaf, limit) for leaf, limit in zip(leaves, rows, strict=True)]
        floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        finite = [jnp.all(jnp.isfinite(leaf)) for leaf in floats]
        return jnp.stack(sums), jnp.all(jnp.array(finite, bool))

    return jax.jit(everything, out_shardings=(sharding, sharding))


# Traced once per shape; many arrays of a state have the same.
@functools.partial(jax.jit, static_argnums=1)
def _checksum(leaf: jax.Array, rows: int | None) -> jax.Array:
    bits = _bits(leaf)
    place = jnp.zeros(bits.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(bits.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place += along * np.uint32(stride % 2**32)
        if axis == 0 and rows is not None:
            bits = jnp.where(along < rows, bits, jnp.uint32(0))
        stride *= bits.shape[axis]
    return jnp.sum(bits * (2 * mixed(place) + 1), dtype=jnp.uint32)


def _bits(leaf: jax.Array) -> jax.Array:
    """Return an array's bits as uint32; 8-byte elements get another axis."""
    if leaf.dtype == bool:
        return leaf.astype(jnp.uint32)
    size = leaf.dtype.itemsize
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[size]
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
