"""The InfoNCE bound on the mutual information between queries and answers, in nats."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def infonce_bound(losses: jax.Array, negatives: jax.Array) -> jax.Array:
    """Compute the terms of the InfoNCE bound, one per query; their mean is the bound.

    The term of a query is ``log p + log(1 + negatives)``, where p is the softmax probability of the answer among itself
    and its negatives (van den Oord et al., 2018). The bound is a lower bound on the mutual information between queries
    and answers, and never exceeds ``log(1 + negatives)``. It is tightest if scores are log conditional probabilities.

    Args:
      losses: ``[B]``, ``-log p``, such as from ``losses.softmax_loss`` without weights.
      negatives: ``[B]``, the number of negatives of each query.

    Returns:
      ``[B]`` in nats.
    """
    return jnp.log1p(negatives) - losses
