"""Regularisers on the factors that a batch uses, one value per triple."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


def n3(moduli: jax.Array) -> jax.Array:
    """Compute the nuclear 3-norm ``sum_j |x_j|^3`` (Lacroix et al., ICML 2018).

    Args:
      moduli: ``[B, d]``, absolute values of the factors.

    Returns:
      ``[B]``.
    """
    return jnp.sum(moduli**3, axis=-1)


def l2(moduli: jax.Array) -> jax.Array:
    """Compute the squared L2 norm ``sum_j |x_j|^2``.

    Args:
      moduli: ``[B, d]``, absolute values of the factors.

    Returns:
      ``[B]``.
    """
    return jnp.sum(moduli**2, axis=-1)


class Regulariser(NamedTuple):
    """A penalty on the factors of a triple. The two entities as answers are always penalised.

    Attributes:
      penalty: ``[B, d] -> [B]``, the penalty of absolute values.
      of_queries: True to penalise the query vectors of both directions as well, which contain entity and relation.
        False to penalise the two rows of the relation instead.
    """

    penalty: Callable[[jax.Array], jax.Array]
    of_queries: bool


REGULARISERS = {
    "n3": Regulariser(n3, of_queries=False),
    "l2": Regulariser(l2, of_queries=False),
    # DURA (Zhang, Cai and Wang, NeurIPS 2020) penalises both sides of a score, |h r|^2 and |t|^2, in both directions.
    # Here the second direction is the reciprocal relation.
    "dura": Regulariser(l2, of_queries=True),
}
