"""What scores tell of the answers, in nats."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def infonce_bound(losses: jax.Array, negatives: jax.Array) -> jax.Array:
    """What a query tells of its answer, in nats, ``[B]``; its mean is the InfoNCE bound.

    The bound (van den Oord et al., 2018) is the mean log probability of the answer among itself and its negatives, by
    a softmax of their scores, plus the log of how many these are. It is a lower bound of the information that queries
    and answers share, never above that log, and tightest where scores are log conditional probabilities.

    Args:
      losses: ``[B]``, minus the log probabilities, such as ``losses.softmax_loss`` without weights.
      negatives: ``[B]``, how many negatives each answer was compared with.
    """
    return jnp.log1p(negatives) - losses
