"""The training triples that a step reads: a batch, and held-out triples for the fit of the fusion.

While triples are held out, nothing else is trained on them, and their answers stay among the negatives of other
queries. If they were masked there, as known answers are, an entity would be pushed away from every answer but the
held-out one, and would learn it from that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.parallel.known_answers import KnownAnswers
from mocme_jax.training.shuffling import batch_rows, run_keys

TRIPLES = 16
"""The number of held-out triples per step."""
SHARE = 0.06
"""The maximum share of the training triples that is held out."""

# Not the number of any epoch.
_DRAW = 2**31 - 1
_CHOICE_SEED = 0


class HeldOut(NamedTuple):
    """The held-out training triples.

    Attributes:
      rows: int32 ``[n]``, ascending.
      known: their facts, which the facts of the other training triples do not contain.
    """

    rows: jax.Array
    known: KnownAnswers


def count_held_out(triples: int, most: int) -> int:
    """Return the number n of held-out triples among T training triples, at most ``most``."""
    return min(max(1, int(SHARE * triples)), most, triples - 1)


def choose_held_out(triples: int, count: int) -> np.ndarray:
    """Choose n held-out rows among T training triples, int64 ``[n]`` ascending, regardless of the run's seed."""
    return np.sort(np.random.default_rng(_CHOICE_SEED).choice(triples, count, replace=False, shuffle=False))


def settled(step: jax.Array, until: int) -> jax.Array:
    """Return whether the weights of the fusion are fixed from this step on, as a bool scalar; never for ``until`` 0."""
    return (step >= until) & (until > 0)


def step_rows(
    key_data: jax.Array, step: jax.Array, held: jax.Array, *, batch_size: int, triples: int, wanted: int, until: int = 0
) -> jax.Array:
    """Return the rows of a step among T training triples, int32 ``[B + wanted]``: its batch, then held-out triples.

    Args:
      key_data: the key of the run, see ``run_keys``.
      step: int32 scalar.
      held: int32 ``[n]``, from ``choose_held_out``.
      batch_size: the batch size B. An epoch is a pass over the triples that are not held out.
      triples: the number of training triples T.
      wanted: the number of held-out triples per step.
      until: the step from which batches are drawn from all triples; 0: never.
    """
    order_key, draw_key = run_keys(key_data)
    if not wanted:
        return batch_rows(order_key, step, batch_size=batch_size, triples=triples)
    count = len(held)
    rows = batch_rows(order_key, step, batch_size=batch_size, triples=triples - count)
    # The row is the position among the other triples plus the number of held-out rows before it.
    rows += jnp.searchsorted(held - jnp.arange(count, dtype=jnp.int32), rows, side="right").astype(jnp.int32)
    if until:
        everything = batch_rows(order_key, step, batch_size=batch_size, triples=triples)
        rows = jnp.where(settled(step, until), everything, rows)
    if not count:  # Of a single triple none can be spared.
        return jnp.concatenate([rows, jnp.zeros((wanted,), jnp.int32)])
    own = jax.random.fold_in(jax.random.fold_in(draw_key, step), _DRAW)
    return jnp.concatenate([rows, held[jax.random.randint(own, (wanted,), 0, count, jnp.int32)]])
