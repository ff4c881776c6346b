"""What a relation's cardinality adds to scores; see ``additions.cardinality``."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def bonus_of_block(bonus: jax.Array, times: jax.Array, relations: jax.Array) -> jax.Array:
    """Added to the scores ``[B, S]`` of S candidates as answers to B questions.

    Args:
      bonus: ``[2R]``.
      times: ``[S, 2R]``, of the candidates.
      relations: int32 ``[B]``, in [0, 2R).
    """
    return jnp.where(jnp.take(times, relations, axis=1).T > 0, bonus[relations][:, None], 0)


def bonus_of_pairs(bonus: jax.Array, times: jax.Array, relations: jax.Array, answers: jax.Array) -> jax.Array:
    """Added to the scores ``[B]`` of one answer each, ids ``[B]`` of entities whose ``times`` are ``[N, 2R]``."""
    return jnp.where(times[answers, relations] > 0, bonus[relations], 0)
