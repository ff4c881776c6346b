"""The class ``Mapper``, which maps the work of one device over several with pmap, shard_map, or vmap on one device.

The body is the same for all three. Every array is either replicated or sharded by rows, as given by a tree of the words
``WHOLE`` and ``ROWS``. The body sees sharded arrays as ``[S, ...]``. Outside they are ``[D * S, ...]`` for shard_map
and ``[D, S, ...]`` for the other two.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mocme_jax.parallel.device_axis import AXIS, padded_size

# A tree of WHOLE and ROWS; a word stands for all leaves below its position.
Spec = Any

WHOLE: Spec = "whole"
ROWS: Spec = "rows"


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program over devices.

    Attributes:
      mapped: the function compiled by JAX.
      first: arguments that pmap needs in addition, passed before the others.
    """

    mapped: Any
    first: tuple = ()

    def __call__(self, *arguments):
        """Run the program."""
        return self.mapped(*self.first, *arguments)

    def lower(self, *arguments):
        """Lower the program for arguments or their shapes without running it; see ``jax.stages.Lowered``."""
        return self.mapped.lower(*self.first, *arguments)


class Mapper:
    """Devices, and the way in which programs are mapped over them.

    Args:
      kind: ``pmap``, ``shard_map``, or ``none``, which runs all shares as lanes of one vmap on one device.
      count: the number of shares D. They run on the first D devices of all processes.
    """

    def __init__(self, kind: str, count: int):
        self.kind, self.count = kind, count
        devices = jax.devices()[: 1 if kind == "none" else count]
        # Explicit axes, JAX's default for a mesh, would need shardings inside the body.
        self.mesh = Mesh(np.array(devices), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))

    def map(self, body: Callable, arguments: tuple[Spec, ...], results: Spec, donate: tuple[int, ...] = ()) -> Program:
        """Compile a body written for one device to a program ``(*arguments) -> results`` with the same signature.

        Args:
          body: the function; it may use the axis ``AXIS``.
          arguments: which parts of the arguments are replicated and which are sharded.
          results: the same for the results.
          donate: positions of arguments whose memory the results may reuse.
        """
        if self.kind == "shard_map":
            # check_vma would multiply the gradients of replicated arrays by the number of devices.
            mapped = jax.shard_map(
                body,
                mesh=self.mesh,
                in_specs=jax.tree.map(self._partition, arguments),
                out_specs=jax.tree.map(self._partition, results),
                check_vma=False,
            )
            return Program(jax.jit(mapped, donate_argnums=donate))
        axes = jax.tree.map(_axis, arguments)

        def indexed(_, *args):
            return body(*args)

        if self.kind == "pmap":
            # pmap needs at least one mapped argument, which is the index.
            mapped = jax.pmap(
                indexed,
                axis_name=AXIS,
                in_axes=(0, *axes),
                out_axes=jax.tree.map(_axis, results),
                donate_argnums=tuple(place + 1 for place in donate),
                devices=list(self.mesh.devices),
            )
            index = self._put(np.arange(self.count), ROWS)
            return Program(mapped, (index,))
        lanes = jax.vmap(indexed, in_axes=(0, *axes), out_axes=0, axis_name=AXIS)

        def first_of_whole(word, part):
            return jax.tree.map(lambda x: x[0], part) if word == WHOLE else part

        def one(*args):
            return jax.tree.map(first_of_whole, results, lanes(jnp.arange(self.count), *args))

        return Program(jax.jit(one, donate_argnums=donate))

    def place(self, tree: Any, spec: Spec) -> Any:
        """Place arrays on the devices in the form that programs take.

        Sharded arrays are given as ``[n, ...]`` with any n. Rows of zeros are appended until they divide.
        """
        return jax.tree.map(lambda word, part: jax.tree.map(lambda x: self._place(x, word), part), spec, tree)

    @property
    def own_shares(self) -> list[int]:
        """The numbers of this process's devices, from 0 to D - 1; they are consecutive."""
        if self.kind == "none":
            return list(range(self.count))
        here = jax.process_index()
        return [number for number, device in enumerate(self.mesh.devices) if device.process_index == here]

    def place_shares(self, share: Callable[[int], Any], spec: Spec) -> Any:
        """Place arrays of which no process holds the whole.

        Args:
          share: returns what a device holds, by its number, as trees of arrays with the same shapes for all devices. It
            is called for this process's devices only. Replicated parts must be equal.
          spec: which parts are sharded.
        """
        shares = [share(number) for number in self.own_shares]

        def one(word, *parts):
            place = self._placed_rows if word == ROWS else lambda rows: self._put(rows[0], WHOLE)
            return jax.tree.map(lambda *rows: place(rows), *parts)

        return jax.tree.map(one, spec, *shares)

    def whole_tables(self, tree: Any, spec: Spec) -> Any:
        """Return arrays of programs with sharded ones as ``[D * S, ...]``, still on their devices, for checkpoints."""

        def one(word, x):
            if self.kind == "none":
                return x.reshape(-1, *x.shape[2:]) if word == ROWS else x
            shards = [shard.data for shard in x.addressable_shards]
            if self.kind == "pmap" and word == ROWS:
                shards = [shard.reshape(shard.shape[1:]) for shard in shards]
            # Results of pmap are local to the process. This assembles them to arrays of all processes.
            shape = self.whole_shape(x) if word == ROWS else x.shape
            return jax.make_array_from_single_device_arrays(shape, self._sharding(word), shards)

        return jax.tree.map(lambda word, part: jax.tree.map(lambda x: one(word, x), part), spec, tree)

    def placed_shapes(self, shapes: Any, spec: Spec) -> Any:
        """Return shapes with the shardings of their arrays; sharded arrays are ``[D * S, ...]``."""

        def placed(word, part):
            sharding = self._sharding(word)
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), part)

        return jax.tree.map(placed, spec, shapes)

    def table_rows(self, rows: int, split: bool) -> int:
        """Return the number of rows of a table after it is placed: padded if it is sharded."""
        return padded_size(rows, self.count) if split else rows

    def whole_shape(self, x: jax.Array) -> tuple[int, ...]:
        """Return the shape of a sharded array as one table over all devices."""
        if self.kind == "shard_map":
            return x.shape
        return (self.count * x.shape[1], *x.shape[2:])

    def _place(self, x: Any, word: str) -> jax.Array:
        if word == WHOLE:
            return self._put(x, WHOLE)
        rows = self.table_rows(x.shape[0], True)
        if isinstance(x, np.ndarray):
            # Share by share, because a padded copy of the whole would double the memory of the host.
            held = rows // self.count
            return self._placed_rows([filled(x[part * held : (part + 1) * held], held) for part in self.own_shares])
        if rows > x.shape[0]:
            x = jnp.concatenate([x, jnp.zeros((rows - x.shape[0], *x.shape[1:]), x.dtype)])
        if self.kind != "shard_map":
            x = x.reshape(self.count, -1, *x.shape[1:])
        return self._put(x, ROWS)

    def _placed_rows(self, rows: Sequence[np.ndarray]) -> jax.Array:
        """Make a sharded array from the rows of this process's devices."""
        if self.kind == "none":
            return jax.device_put(np.stack(rows), self._sharding(ROWS))
        shape = rows[0].shape
        if self.kind == "pmap":
            rows, shape = [part[None] for part in rows], (self.count, *shape)
        else:
            shape = (self.count * shape[0], *shape[1:])
        devices = [self.mesh.devices[number] for number in self.own_shares]
        arrays = [jax.device_put(part, device) for part, device in zip(rows, devices, strict=True)]
        return jax.make_array_from_single_device_arrays(shape, self._sharding(ROWS), arrays)

    def _partition(self, word: str) -> PartitionSpec:
        """Return the partition; lanes on one device hold all rows there."""
        return PartitionSpec(AXIS) if word == ROWS and self.kind != "none" else PartitionSpec()

    def _sharding(self, word: str) -> NamedSharding:
        return NamedSharding(self.mesh, self._partition(word))

    def _put(self, x: Any, word: str) -> jax.Array:
        sharding = self._sharding(word)
        if isinstance(x, jax.Array) or jax.process_count() == 1:
            return jax.device_put(x, sharding)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def filled(rows: np.ndarray, length: int) -> np.ndarray:
    """Pad rows with zeros to a length."""
    if len(rows) == length:
        return rows
    return np.concatenate([rows, np.zeros((length - len(rows), *rows.shape[1:]), rows.dtype)])


def _axis(word: str) -> int | None:
    return 0 if word == ROWS else None
