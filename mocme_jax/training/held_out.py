"""Which training triples a step reads: a batch, and some for the fit of the fusion, which train nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mocme_jax.training.shuffling import batch_rows, run_keys, shuffled

TRIPLES = 16
"""Held-out triples that join a step."""
SHARE = 0.06
"""Share of the training triples that is held out."""
MOST = 1000
"""Held-out triples at most: enough for the fusion's few parameters, and each is one less to learn from."""

# No epoch has this number.
_CHOICE = 2**31 - 1


def count_held_out(triples: int, wanted: int) -> int:
    """The number of held-out triples among T training triples; 0 if no step wants any (``wanted`` is 0)."""
    return min(max(1, int(SHARE * triples)), MOST, triples - 1) if wanted else 0


def settled(step: jax.Array, until: int) -> jax.Array:
    """Whether the fusion's weights stay as they are from this step on; bool scalar. ``until`` 0 is never."""
    return (step >= until) & (until > 0)


def step_rows(
    key_data: jax.Array, step: jax.Array, *, batch_size: int, triples: int, wanted: int, until: int = 0
) -> jax.Array:
    """The rows of a step among T training triples, int32 ``[B + held]``: its batch, then held-out triples.

    Which triples are held out is the run's choice, the same in every step; of these a step draws some.

    Args:
      key_data: the run's, see ``run_keys``.
      step: int32 scalar.
      batch_size: B; an epoch is a pass over the triples that are not held out.
      wanted: held, how many held-out triples join.
      until: the step from which batches are of all triples, those held out before too; 0: never.
    """
    order_key, draw_key = run_keys(key_data)
    trained = triples - count_held_out(triples, wanted)
    rows = batch_rows(order_key, step, batch_size=batch_size, triples=trained)
    if not wanted:
        return rows
    own = jax.random.fold_in(jax.random.fold_in(draw_key, step), _CHOICE)
    # Of a single triple none can be spared.
    held = jax.random.randint(own, (wanted,), min(trained, triples - 1), triples, jnp.int32)
    if until:
        everything = batch_rows(order_key, step, batch_size=batch_size, triples=triples)
        rows = jnp.where(settled(step, until), everything, rows)
    return shuffled(jax.random.fold_in(order_key, _CHOICE), jnp.concatenate([rows, held]), triples)
