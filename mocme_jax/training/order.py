"""The order in which an epoch visits the training triples, and the keys of a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def run_keys(key_data: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A run's two PRNG keys, from the key data in its state: of the epochs' orders, and of the steps' other draws."""
    order_key, draw_key = jax.random.split(jax.random.wrap_key_data(key_data))
    return order_key, draw_key


def batch_rows(key: jax.Array, step: jax.Array, *, batch_size: int, triples: int) -> jax.Array:
    """Which training triples make up the batch of a step.

    Every epoch visits every triple, in an order of its own; its last batch is filled up from its start.

    Args:
      key: PRNG key of the run's orders.
      step: int32 scalar, from 0 on; epochs follow one another.
      batch_size: B.
      triples: T.

    Returns:
      int32 ``[B]``, rows below T.
    """
    steps_per_epoch = -(-triples // batch_size)
    order = jax.random.permutation(jax.random.fold_in(key, step // steps_per_epoch), triples)
    first = (step % steps_per_epoch) * batch_size
    return order[(first + jnp.arange(batch_size)) % triples]
