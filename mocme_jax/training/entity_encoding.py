"""The encoding of all entities, in which each device encodes its own rows in blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mocme_jax.additions.addition import TableAddition, changed
from mocme_jax.method.encoder import Carried, Encoding
from mocme_jax.method.mocme import EntityVectors, MoCME, Params
from mocme_jax.parallel.device_axis import AXIS, padded_size
from mocme_jax.parallel.entity_tables import Inputs, inputs_spec, look_up
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper, Program
from mocme_jax.training.train_state import params_spec


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

    def program(params: Params, inputs: Inputs):
        start = jax.lax.axis_index(AXIS).astype(jnp.int32) * held

        def one(number):
            # The last block starts earlier to stay within this device's rows. Repeated rows count once.
            first = jnp.minimum(number * block, held - block)
            ids = start + first + jnp.arange(block, dtype=jnp.int32)
            real = (ids < entities) & (first + jnp.arange(block) >= number * block)
            if split:
                own = Carried(params.structure, *inputs)
                carried = jax.tree.map(lambda table: jax.lax.dynamic_slice_in_dim(table, first, block), own)
            else:
                carried = look_up(params.structure, inputs, jnp.minimum(ids, entities - 1), split=False)
            encoding: Encoding = model.apply(params.model, carried, method="encode")
            shares = model.apply(params.model, encoding, method="shares")
            vectors = model.apply(params.model, encoding, method="entity_vectors")
            return vectors, jnp.sum(jnp.where(real[:, None], shares, 0), axis=0)

        with jax.default_matmul_precision("highest"):
            vectors, shares = jax.lax.map(one, jnp.arange(blocks, dtype=jnp.int32))
        shares = jax.lax.psum(jnp.sum(shares, axis=0), AXIS) / entities
        return jax.tree.map(lambda table: _joined(table, held), vectors), shares

    arguments, results = (params_spec(split), inputs_spec(split)), (EntityVectors(ROWS, ROWS), WHOLE)

    def after_additions(additions: tuple[TableAddition, ...], params: Params, inputs: Inputs):
        return program(params._replace(structure=changed(params.structure, additions)), inputs)

    mapped = mapper.map(after_additions, (WHOLE, *arguments), results)
    return Program(mapped.mapped, (*mapped.first, mapper.place(additions, WHOLE)))


def _joined(blocks: jax.Array, rows: int) -> jax.Array:
    """Join blocks ``[n, block, d]`` to ``[rows, d]``; the last block overlaps the one before."""
    number, block, width = blocks.shape
    whole = blocks[:-1].reshape(-1, width)
    return jnp.concatenate([whole, blocks[-1, number * block - rows :]])
