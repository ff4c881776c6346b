"""The encoding of all entities, in which each device encodes its own rows: at once, or by blocks in a ranker."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.addition import TableAddition, changed, changed_rows
from mocme_jax.evaluation.ranking import EntitySource
from mocme_jax.method.encoder import Carried
from mocme_jax.method.mocme import EntityVectors, MoCME, Params
from mocme_jax.parallel.device_axis import AXIS, padded_size
from mocme_jax.parallel.entity_tables import Inputs, inputs_spec, look_up
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper, Program
from mocme_jax.parallel.sharded_tables import take_everywhere
from mocme_jax.training.train_state import params_spec

# The shares of the experts are means over all entities, or over this many, evenly spread, if they are not all encoded
# at once.
_SHARED_OVER = 1 << 16


class Unencoded(NamedTuple):
    """The encoder's inputs of all entities, which a ranker encodes block by block; see ``make_block_encoding``.

    Attributes:
      structure: the structure table.
      inputs: the other inputs.
      additions: table additions, which have measured the structure table; only without sharded tables.
      hidden: int32 scalar, the expert that has weight 0 in queries; -1: none.
    """

    structure: jax.Array
    inputs: Inputs
    additions: tuple[TableAddition, ...] = ()
    hidden: Any = np.int32(-1)


Encode: TypeAlias = Callable[[Params, Inputs], Any]
"""``(params, inputs) -> (tables, shares)``, where the tables are ``EntityVectors`` or ``Unencoded``."""


def make_encode_program(
    model: MoCME,
    *,
    entities: int,
    mapper: Mapper,
    split: bool = False,
    block: int = 1024,
    additions: tuple[TableAddition, ...] = (),
) -> Program:
    """Make ``(params, inputs) -> (EntityVectors, shares)`` for all N entities, sharded by rows over the devices.

    It runs in full float32, whatever the device's default, because its result is ranked. ``shares [H]`` is the mean
    over entities of each expert's share of the weights; see ``MoCME.shares``.

    Args:
      model: the model.
      entities: the number of entities N.
      mapper: the devices.
      split: whether tables are sharded.
      block: the number of entities encoded at a time.
      additions: table additions, applied to the structure table before encoding; only without sharded tables.
    """
    devices = mapper.count
    held = padded_size(entities, devices) // devices
    block = min(block, held)
    blocks = -(-held // block)

    def program(additions: tuple[TableAddition, ...], params: Params, inputs: Inputs):
        params = params._replace(structure=changed(params.structure, additions))
        start = jax.lax.axis_index(AXIS).astype(jnp.int32) * held

        def one(number: jax.Array):
            # The last block starts earlier to stay within this device's rows. Repeated rows count once.
            first = jnp.minimum(number * block, held - block)
            ids = start + first + jnp.arange(block, dtype=jnp.int32)
            real = (ids < entities) & (first + jnp.arange(block) >= number * block)
            carried = _own_rows(Unencoded(params.structure, inputs), first, ids, entities, split)
            encoding: Any = model.apply(params.model, carried, method="encode")
            shares: Any = model.apply(params.model, encoding, method="shares")
            vectors = model.apply(params.model, encoding, method="entity_vectors")
            return vectors, jnp.sum(jnp.where(real[:, None], shares, 0), axis=0)

        with jax.default_matmul_precision("highest"):
            vectors, shares = jax.lax.map(one, jnp.arange(blocks, dtype=jnp.int32))
        shares = jax.lax.psum(jnp.sum(shares, axis=0), AXIS) / entities
        return jax.tree.map(lambda table: _joined(table, held), vectors), shares

    arguments = (WHOLE, params_spec(split), inputs_spec(split))
    mapped = mapper.map(program, arguments, (EntityVectors(ROWS, ROWS), WHOLE))
    return Program(mapped.mapped, (*mapped.first, mapper.place(additions, WHOLE)))


def _joined(blocks: jax.Array, rows: int) -> jax.Array:
    """Join blocks ``[n, block, d]`` to ``[rows, d]``; the last block overlaps the one before."""
    number, block, width = blocks.shape
    whole = blocks[:-1].reshape(-1, width)
    return jnp.concatenate([whole, blocks[-1, number * block - rows :]])


def _own_rows(tables: Unencoded, first: jax.Array, ids: jax.Array, entities: int, split: bool) -> Carried:
    """Return the encoder's inputs of a block of this device's entities, at its rows from ``first`` on."""
    if not split:
        return _looked_up(tables, jnp.minimum(ids, entities - 1))
    own = Carried(tables.structure, *tables.inputs)
    return jax.tree.map(lambda table: jax.lax.dynamic_slice_in_dim(table, first, len(ids)), own)


def _looked_up(tables: Unencoded, ids: jax.Array) -> Carried:
    """Look up the encoder's inputs of entities in tables that this device holds."""
    carried = look_up(tables.structure, tables.inputs, ids, split=False)
    if not tables.additions:
        return carried
    rows = jax.lax.optimization_barrier(changed_rows(tables.structure, tables.additions, _whole_tiles(ids)))
    return carried._replace(structure=rows[: len(ids)])


_TILE = 32


def _whole_tiles(rows: jax.Array) -> jax.Array:
    """Repeat the last of n rows up to a multiple of 32.

    Products compute the rows that are left over by other code, which may give another last bit. An entity must have
    the same vector wherever it is in a block.
    """
    return jnp.pad(rows, [(0, -len(rows) % _TILE), *[(0, 0)] * (rows.ndim - 1)], mode="edge")


def block_source(model: MoCME, *, entities: int, devices: int, split: bool) -> EntitySource:
    """Make the source of a ranker that encodes N entities of ``Unencoded`` block by block.

    Args:
      model: the model.
      entities: the number of entities N.
      devices: the number of devices.
      split: whether tables are sharded.
    """
    held = padded_size(entities, devices) // devices

    def encoded(params: Any, carried: Carried) -> EntityVectors:
        # The barriers keep the compiler from fusing the encoding with what is around it, which could change last bits:
        # an entity must have the same vector as a gold answer and in a block.
        whole = jax.lax.optimization_barrier(jax.tree.map(_whole_tiles, carried))
        encoding = model.apply(params, whole, method="encode")
        vectors: Any = jax.lax.optimization_barrier(model.apply(params, encoding, method="entity_vectors"))
        return jax.tree.map(lambda table: table[: len(carried.structure)], vectors)

    def block(params: Any, tables: Unencoded, first: jax.Array, size: int) -> jax.Array:
        ids = jax.lax.axis_index(AXIS).astype(jnp.int32) * held + first + jnp.arange(size, dtype=jnp.int32)
        return encoded(params, _own_rows(tables, first, ids, entities, split)).answers

    def answers(params: Any, tables: Unencoded, places: jax.Array) -> jax.Array:
        ids = places if split else jnp.minimum(places + jax.lax.axis_index(AXIS).astype(jnp.int32) * held, entities - 1)
        return encoded(params, _looked_up(tables, ids)).answers

    def questions(params: Any, tables: Unencoded, ids: jax.Array) -> jax.Array:
        return model.without(encoded(params, carried_everywhere(tables, ids, split)).questions, tables.hidden)

    spec = Unencoded(params_spec(split).structure, inputs_spec(split), WHOLE, WHOLE)
    return EntitySource(spec, lambda tables: held, block, answers, questions)


def carried_everywhere(tables: Unencoded, ids: jax.Array, split: bool) -> Carried:
    """Return the encoder's inputs of entities ``ids [n]``, which are the same on every device."""
    if not split:
        return _looked_up(tables, ids)
    carried = jax.tree.map(lambda table: take_everywhere(table, ids), Carried(tables.structure, *tables.inputs))
    return carried._replace(present=carried.present.astype(bool))


def make_block_encoding(
    model: MoCME, *, entities: int, mapper: Mapper, split: bool, additions: tuple[TableAddition, ...] = ()
) -> Encode:
    """Make ``(params, inputs) -> (Unencoded, shares)``, to be used like ``make_encode_program`` on a large graph.

    Nothing is encoded but the entities over which the shares are averaged. Arguments are as there.
    """
    some = np.linspace(0, entities, min(entities, _SHARED_OVER), endpoint=False).astype(np.int32)
    blocks = np.resize(some, (-(-len(some) // 1024), min(len(some), 1024)))

    def program(additions: tuple[TableAddition, ...], params: Params, inputs: Inputs, blocks: jax.Array):
        known = tuple(addition.measured(params.structure) for addition in additions)
        tables = Unencoded(params.structure, inputs, known)

        def one(ids):
            encoding = model.apply(params.model, carried_everywhere(tables, ids, split), method="encode")
            return jnp.mean(model.apply(params.model, encoding, method="shares"), axis=0)

        with jax.default_matmul_precision("highest"):
            return jnp.mean(jax.lax.map(one, blocks), axis=0), known

    mapped = mapper.map(program, (WHOLE, params_spec(split), inputs_spec(split), WHOLE), WHOLE)
    blocks, additions, hidden = mapper.place((blocks, additions, np.int32(-1)), WHOLE)

    def encode(params: Params, inputs: Inputs) -> tuple[Unencoded, jax.Array]:
        shares, known = mapped(additions, params, inputs, blocks)
        return Unencoded(params.structure, inputs, known, hidden), shares

    return encode
