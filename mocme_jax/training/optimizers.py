"""Adagrad for the tables, Adam for the rest; the structure table whole, or the rows of a step alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mocme_jax.parallel.device_axis import gathered
from mocme_jax.parallel.sharded_tables import held_places

FUSION_RATE = 0.02
"""Adam's step size for the weights of the experts."""


class Optimizers(NamedTuple):
    """Optimizers of the module's variables and of the structure table."""

    model: optax.GradientTransformation
    structure: optax.GradientTransformation


class OptimizerState(NamedTuple):
    """Their states; arrays of the second have a row an entity, as the table has."""

    model: Any
    structure: Any


def create_optimizers(learning_rate: float, table_learning_rate: float) -> Optimizers:
    """Adagrad at ``table_learning_rate`` for the tables of structure and relations, Adam for all else.

    Adam's step size is ``FUSION_RATE`` for the fusion and ``learning_rate`` for the rest.

    Rows of tables are looked up by id, so their gradients are sparse, which Adagrad's per-coordinate rates suit (Duchi
    et al., 2011). Its sums start at 0: a larger start would drown the small gradients of a mean loss, and so would
    optax's eps, which stands under the root.
    """
    adagrad = optax.adagrad(table_learning_rate, initial_accumulator_value=0.0, eps=1e-20)
    model = optax.partition(
        {"table": adagrad, "fusion": optax.adam(FUSION_RATE), "rest": optax.adam(learning_rate)},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: _kind(path), params),
    )
    return Optimizers(model, adagrad)


def _kind(path: tuple) -> str:
    """Which optimizer moves a parameter of the module, by its path ``params/...``."""
    if path[1].key == "fusion":
        return "fusion"
    return "table" if path[1].key == "relation" else "rest"


def update_rows(
    optimizer: optax.GradientTransformation,
    table: jax.Array,
    state: Any,
    ids: jax.Array,
    gradients: jax.Array,
    *,
    split: bool,
) -> tuple[jax.Array, Any, jax.Array]:
    """Updates the rows of a table that a step read, and no others, at a cost that does not depend on their number.

    For an optimizer that leaves rows without a gradient as they are, as Adagrad does, this is what it does to the whole
    table, up to the order in which gradients of repeated ids are added. (Adam's moments of the other rows would stand
    still, where the dense one lets them fade.)

    Args:
      optimizer: works on every coordinate by itself; its state holds arrays of the table's shape.
      table: ``[N, d]``, or this device's ``[S, d]``.
      ids: int32 ``[n]``, the entities that this device read; repeats are added up.
      gradients: ``[n, d]``, this device's own; they are summed over the devices.

    Returns:
      The table, the state, and the sum of the squares of the gradients of this device's rows.
    """
    ids, gradients = gathered(ids), gathered(gradients)
    places = held_places(ids, len(table)) if split else ids
    order = jnp.argsort(places)
    places = places[order]
    slot = jnp.cumsum(jnp.concatenate([jnp.zeros((1,), jnp.int32), (places[1:] != places[:-1]).astype(jnp.int32)]))
    summed = jax.ops.segment_sum(gradients[order], slot, len(ids), indices_are_sorted=True)
    # Slots that no id fills, and rows that another device holds, lie behind the table: writing there does nothing.
    target = jnp.full((len(ids),), len(table), jnp.int32).at[slot].set(places, indices_are_sorted=True)

    def rows(array):
        return array.at[target].get(mode="clip") if array.shape == table.shape else array

    def write(old, new):
        return old.at[target].set(new, mode="drop") if old.shape == table.shape else new

    updates, changed = optimizer.update(summed, jax.tree.map(rows, state), rows(table))
    squares = jnp.sum(jnp.where((target < len(table))[:, None], summed, 0) ** 2)
    return write(table, rows(table) + updates), jax.tree.map(write, state, changed), squares
