"""The two losses over a positive and weighted negatives. Scores ``[B, C]`` -> one loss a row ``[B]``."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def softmax_loss(
    positive: jax.Array, scores: jax.Array, negative: jax.Array, weights: jax.Array | None
) -> jax.Array:
    """-positive + log(exp positive + sum_c weight_c exp score_c), the weight inside the sum as log weight.

    Args:
      positive: ``[B]``.
      scores: ``[B, C]``.
      negative: bool ``[B, C]``; other columns are left out.
      weights: ``[B, C]`` or None for the plain form, which weights of 1 give exactly (log 1 = 0).
    """
    if weights is not None:
        negative = negative & (weights > 0)
        scores = scores + jnp.log(jnp.where(negative, weights, 1))
    scores = jnp.where(negative, scores, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.maximum(positive, jnp.max(scores, axis=-1, initial=-jnp.inf)))
    total = jnp.exp(positive - top) + jnp.sum(jnp.exp(scores - top[:, None]), axis=-1)
    return top + jnp.log(total) - positive


def logistic_loss(
    positive: jax.Array, scores: jax.Array, negative: jax.Array, weights: jax.Array | None, margin: float
) -> jax.Array:
    """-log sigmoid(margin + positive) - mean_c weight_c log sigmoid(-(margin + score_c)) (Sun et al., ICLR 2019).

    The mean is over a row's negatives. Arguments as in ``softmax_loss``; distances as scores want a margin > 0.
    """
    values = jax.nn.softplus(margin + scores)
    if weights is not None:
        values = values * weights
    count = jnp.maximum(jnp.sum(negative, axis=-1), 1).astype(scores.dtype)
    return jax.nn.softplus(-(margin + positive)) + jnp.sum(jnp.where(negative, values, 0), axis=-1) / count
