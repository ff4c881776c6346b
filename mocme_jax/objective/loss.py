"""The two losses over a positive and weighted negatives.

The columns of the scores are spread over the devices, C on each, and all have the same rows, B; every device gets the
losses of its own share of the rows. One device, which holds all columns and all rows, is the plain case.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mocme_jax.parallel.axis import AXIS, gathered, share, summed_share


def softmax_loss(
    positive: jax.Array, scores: jax.Array, negative: jax.Array, weights: jax.Array | None, devices: int
) -> jax.Array:
    """-positive + log(exp positive + sum_c weight_c exp score_c), the weight inside the sum as log weight.

    Args:
      positive: ``[B / D]``, of this device's rows.
      scores: ``[B, C]``.
      negative: bool ``[B, C]``; other columns are left out.
      weights: ``[B, C]`` or None for the plain form, which weights of 1 give exactly (log 1 = 0).
      devices: D.

    Returns:
      ``[B / D]``.
    """
    if weights is not None:
        negative = negative & (weights > 0)
        scores = scores + jnp.log(jnp.where(negative, weights, 1))
    scores = jnp.where(negative, scores, -jnp.inf)
    # One top for all columns of a row, wherever they are: their powers are summed.
    highest = jax.lax.pmax(jax.lax.stop_gradient(jnp.max(scores, axis=-1, initial=-jnp.inf)), AXIS)
    top = jnp.maximum(gathered(jax.lax.stop_gradient(positive)), highest)
    total = summed_share(jnp.sum(jnp.exp(scores - top[:, None]), axis=-1))
    top = share(top, devices)
    return top + jnp.log(jnp.exp(positive - top) + total) - positive


def logistic_loss(
    positive: jax.Array, scores: jax.Array, negative: jax.Array, weights: jax.Array | None, margin: float
) -> jax.Array:
    """-log sigmoid(margin + positive) - mean_c weight_c log sigmoid(-(margin + score_c)) (Sun et al., ICLR 2019).

    The mean is over a row's negatives. Arguments as in ``softmax_loss``; distances as scores want a margin > 0.
    """
    values = jax.nn.softplus(margin + scores)
    if weights is not None:
        values = values * weights
    count = summed_share(jnp.sum(negative, axis=-1).astype(scores.dtype))
    total = summed_share(jnp.sum(jnp.where(negative, values, 0), axis=-1))
    return jax.nn.softplus(-(margin + positive)) + total / jnp.maximum(count, 1)
