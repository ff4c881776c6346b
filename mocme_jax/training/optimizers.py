"""The optimizers, Adagrad for tables and Adam for the rest, and the update of only those rows that a step read."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mocme_jax.parallel.device_axis import gathered
from mocme_jax.parallel.sharded_tables import held_places

FUSION_RATE = 0.02
"""Adam's step size for the weights of the experts, if they are fitted on train."""


class Optimizers(NamedTuple):
    """The optimizers.

    Attributes:
      model: of the module's variables.
      structure: of the structure table.
    """

    model: optax.GradientTransformation
    structure: optax.GradientTransformation


class OptimizerState(NamedTuple):
    """The states of the optimizers.

    Attributes:
      model: of the module's variables.
      structure: of the structure table; its arrays have one row per entity.
    """

    model: Any
    structure: Any


class RowSums(NamedTuple):
    """The state of ``rowwise_adagrad``: float32 ``[N]``, sums over steps of the mean squared gradient of a row."""

    sums: jax.Array


def rowwise_adagrad(learning_rate: float) -> optax.GradientTransformation:
    """Make Adagrad with one sum of squares for each row of a table ``[N, d]``, instead of one for each number.

    A row's sum grows by the mean of its squared gradient. So the state takes 4 bytes per row, and all numbers of a row
    have the same step size, as in PyTorch-BigGraph (Lerer et al., SysML 2019).

    Args:
      learning_rate: the step size.
    """

    def update(gradients: jax.Array, state: RowSums, _=None) -> tuple[jax.Array, RowSums]:
        sums = state.sums + jnp.mean(gradients**2, axis=1)
        scale = jnp.where(sums > 0, jax.lax.rsqrt(jnp.where(sums > 0, sums, 1)), 0)
        return -learning_rate * scale[:, None] * gradients, RowSums(sums)

    return optax.GradientTransformation(lambda table: RowSums(jnp.zeros(len(table), table.dtype)), update)


def create_optimizers(learning_rate: float, table_learning_rate: float, rowwise: bool = False) -> Optimizers:
    """Create Adagrad for the tables of structure and relations, and Adam for all other parameters.

    Rows of tables are looked up by id, so their gradients are sparse, which suits Adagrad's rates per coordinate (Duchi
    et al., 2011). Its sums start at 0: a larger value would drown the small gradients of a mean loss, and so would
    optax's default eps, which is under the root.

    Args:
      learning_rate: Adam's step size, except for the fusion, which has ``FUSION_RATE``.
      table_learning_rate: Adagrad's step size.
      rowwise: whether the structure table has ``rowwise_adagrad``.
    """
    adagrad = optax.adagrad(table_learning_rate, initial_accumulator_value=0.0, eps=1e-20)
    model = optax.partition(
        {"table": adagrad, "fusion": optax.adam(FUSION_RATE), "rest": optax.adam(learning_rate)},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: _kind(path), params),
    )
    return Optimizers(model, rowwise_adagrad(table_learning_rate) if rowwise else adagrad)


def _kind(path: tuple) -> str:
    """Return which optimizer updates a parameter of the module, by its path ``params/...``."""
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
    """Update only the rows of a table that a step read, at a cost that does not depend on the number of rows.

    The optimizer must leave rows without a gradient unchanged, as Adagrad does. The result is then that of an update of
    the whole table, up to the order in which gradients of repeated ids are added. (Adam's moments of the other rows
    would not decay as in an update of the whole table.)

    Args:
      optimizer: acts on every row separately; its state has arrays with one row, or one number, per row of the table.
      table: ``[N, d]``, or this device's ``[S, d]``.
      state: the state of the optimizer.
      ids: int32 ``[n]``, the entities that this device read; gradients of repeated ids are added.
      gradients: ``[n, d]``, of this device; they are summed over the devices.
      split: whether the table is sharded.

    Returns:
      The table, the state, and the sum of the squared gradients of this device's rows.
    """
    ids, gradients = gathered(ids), gathered(gradients)
    places = held_places(ids, len(table)) if split else ids
    order = jnp.argsort(places)
    places = places[order]
    slot = jnp.cumsum(jnp.concatenate([jnp.zeros((1,), jnp.int32), (places[1:] != places[:-1]).astype(jnp.int32)]))
    summed = jax.ops.segment_sum(gradients[order], slot, len(ids), indices_are_sorted=True)
    # Unused slots, and rows on other devices, are positions after the table, where writing does nothing.
    target = jnp.full((len(ids),), len(table), jnp.int32).at[slot].set(places, indices_are_sorted=True)

    def rows(array):
        return array.at[target].get(mode="clip") if array.shape[:1] == table.shape[:1] else array

    def write(old, new):
        return old.at[target].set(new, mode="drop") if old.shape[:1] == table.shape[:1] else new

    updates, changed = optimizer.update(summed, jax.tree.map(rows, state), rows(table))
    squares = jnp.sum(jnp.where((target < len(table))[:, None], summed, 0) ** 2)
    return write(table, rows(table) + updates), jax.tree.map(write, state, changed), squares
