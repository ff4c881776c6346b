"""Regularisers on the factors that a batch used; each gives one value per triple."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


def n3(moduli: jax.Array) -> jax.Array:
    """Nuclear 3-norm: ``sum_j |x_j|^3`` over the absolute values ``[B, d]`` -> ``[B]`` (Lacroix et al., ICML 2018)."""
    return jnp.sum(moduli**3, axis=-1)


def l2(moduli: jax.Array) -> jax.Array:
    """Squared L2 norm: ``sum_j |x_j|^2`` over the absolute values ``[B, d]`` -> ``[B]``."""
    return jnp.sum(moduli**2, axis=-1)


class Regulariser(NamedTuple):
    """What is penalised of a triple beside its two entities as answers.

    Attributes:
      penalty: ``[B, d] -> [B]``, of absolute values.
      of_queries: of the two directions' queries, entity and relation together, in place of the relation's two rows.
    """

    penalty: Callable[[jax.Array], jax.Array]
    of_queries: bool


REGULARISERS = {
    "n3": Regulariser(n3, of_queries=False),
    "l2": Regulariser(l2, of_queries=False),
    # Both sides of a score, |h r|^2 and |t|^2, in both directions: DURA (Zhang, Cai and Wang, NeurIPS 2020), whose
    # second half is here the reciprocal relation's.
    "dura": Regulariser(l2, of_queries=True),
}
