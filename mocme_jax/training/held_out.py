"""Which training triples a step reads: a batch, and some that are held out, for the fit of the fusion alone.

While they are held out, nothing else is trained on them, and their answers stay among the negatives of other queries.
Were they left out there, as known answers are, an entity would be pushed away from every answer but the one that is
held out, and so learn it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.parallel.known_answers import KnownAnswers
from mocme_jax.training.shuffling import batch_rows, run_keys

TRIPLES = 16
"""Held-out triples that join a step."""
SHARE = 0.06
"""Share of the training triples that is held out."""
MOST = 1000
"""Held-out triples at most: enough for the fusion's few parameters, and each is one less to learn from."""

# No epoch has this number.
_DRAW = 2**31 - 1
_CHOICE_SEED = 0


class HeldOut(NamedTuple):
    """Training triples that are held out.

    Attributes:
      rows: int32 ``[n]``, ascending.
      known: their facts, which those of the triples that are trained on lack.
    """

    rows: jax.Array
    known: KnownAnswers


def count_held_out(triples: int, wanted: int) -> int:
    """The number of held-out triples among T training triples; 0 if no step wants any (``wanted`` is 0)."""
    return min(max(1, int(SHARE * triples)), MOST, triples - 1) if wanted else 0


def choose_held_out(triples: int, wanted: int) -> np.ndarray:
    """The rows to hold out of T training triples, int64 ``[n]`` ascending: the same whatever the run's seed."""
    count = count_held_out(triples, wanted)
    return np.sort(np.random.default_rng(_CHOICE_SEED).choice(triples, count, replace=False, shuffle=False))


def settled(step: jax.Array, until: int) -> jax.Array:
    """Whether the fusion's weights stay as they are from this step on; bool scalar. ``until`` 0 is never."""
    return (step >= until) & (until > 0)


def step_rows(
    key_data: jax.Array, step: jax.Array, held: jax.Array, *, batch_size: int, triples: int, wanted: int, until: int = 0
) -> jax.Array:
    """The rows of a step among T training triples, int32 ``[B + wanted]``: its batch, then held-out triples.

    Args:
      key_data: the run's, see ``run_keys``.
      step: int32 scalar.
      held: int32 ``[n]``, from ``choose_held_out``.
      batch_size: B; an epoch is a pass over the triples that are not held out.
      wanted: how many held-out triples join.
      until: the step from which batches are of all triples, those held out before too; 0: never.
    """
    order_key, draw_key = run_keys(key_data)
    if not wanted:
        return batch_rows(order_key, step, batch_size=batch_size, triples=triples)
    count = len(held)
    rows = batch_rows(order_key, step, batch_size=batch_size, triples=triples - count)
    # The place among the triples that are trained on, plus the number of held-out rows ahead of it, is the row.
    rows += jnp.searchsorted(held - jnp.arange(count, dtype=jnp.int32), rows, side="right").astype(jnp.int32)
    if until:
        everything = batch_rows(order_key, step, batch_size=batch_size, triples=triples)
        rows = jnp.where(settled(step, until), everything, rows)
    if not count:  # Of a single triple none can be spared.
        return jnp.concatenate([rows, jnp.zeros((wanted,), jnp.int32)])
    own = jax.random.fold_in(jax.random.fold_in(draw_key, step), _DRAW)
    return jnp.concatenate([rows, held[jax.random.randint(own, (wanted,), 0, count, jnp.int32)]])
