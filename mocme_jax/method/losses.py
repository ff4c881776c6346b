"""Losses over the score of a query's answer and those of weighted negatives; one value per row.

``across`` joins holders of the columns of one row; see ``Across``. With the default, b = B.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mocme_jax.method.across import LOCAL, Across


def softmax_loss(
    positive: jax.Array,
    scores: jax.Array,
    negative: jax.Array,
    weights: jax.Array | None = None,
    across: Across = LOCAL,
) -> jax.Array:
    """-positive + log(exp positive + sum_c exp score_c), with weights on each negative's part of the gradient.

    The plain loss pulls a score_c down by p_c, its share of the sum, and the positive up by the sum of these. Weights
    make that weight_c p_c and leave the value plain. Weights of 1 give the plain form, value and gradient, exactly.

    Args:
      positive: ``[b]``, of one's own rows.
      scores: ``[B, C]``.
      negative: bool ``[B, C]``; other columns are left out.
      weights: ``[B, C]``, without gradient; None for the plain form.
      across: joins the holders of columns.

    Returns:
      ``[b]``.
    """
    powers = jnp.where(negative, scores, -jnp.inf)
    log_sum = _log_sum(positive, powers, across)
    loss = log_sum - positive
    if weights is None:
        return loss
    shares = jnp.exp(jax.lax.stop_gradient(powers) - across.everyone(jax.lax.stop_gradient(log_sum))[:, None])
    more = jnp.where(negative, (weights - 1) * shares, 0)
    pull = across.own_sum(jnp.sum(more * jnp.where(negative, scores, 0), axis=-1))
    pull = pull - across.own_sum(jnp.sum(more, axis=-1)) * positive
    # Exactly 0 in value.
    return loss + (pull - jax.lax.stop_gradient(pull))


def margin_softmax_loss(
    positive: jax.Array,
    scores: jax.Array,
    negative: jax.Array,
    weights: jax.Array | None = None,
    across: Across = LOCAL,
) -> jax.Array:
    """-positive + log(exp positive + sum_c weight_c exp score_c): a weight is a margin, log weight added to the score.

    Scores move by these margins until they are gone from the gradient. Arguments and result as in ``softmax_loss``.
    """
    powers = scores
    if weights is not None:
        negative = negative & (weights > 0)
        powers = scores + jnp.log(jnp.where(negative, weights, 1))
    return _log_sum(positive, jnp.where(negative, powers, -jnp.inf), across) - positive


def _log_sum(positive: jax.Array, powers: jax.Array, across: Across) -> jax.Array:
    """log(exp positive + sum_c exp power_c) ``[b]``, for powers ``[B, C]`` that may be -inf."""
    # One maximum for all columns of a row, wherever they are: their powers are summed.
    highest = across.max(jax.lax.stop_gradient(jnp.max(powers, axis=-1, initial=-jnp.inf)))
    top = jnp.maximum(across.everyone(jax.lax.stop_gradient(positive)), highest)
    total = across.own_sum(jnp.sum(jnp.exp(powers - top[:, None]), axis=-1))
    own_top = across.own(top)
    return own_top + jnp.log(jnp.exp(positive - own_top) + total)


def logistic_loss(
    positive: jax.Array,
    scores: jax.Array,
    negative: jax.Array,
    weights: jax.Array | None = None,
    across: Across = LOCAL,
    *,
    margin: float = 0.0,
) -> jax.Array:
    """-log sigmoid(margin + positive) - mean_c weight_c log sigmoid(-(margin + score_c)) (Sun et al., ICLR 2019).

    The mean is over a row's negatives. Arguments and result as in ``softmax_loss``; distances as scores want a margin
    above 0.
    """
    values = jax.nn.softplus(margin + scores)
    if weights is not None:
        values = values * weights
    count = across.own_sum(jnp.sum(negative, axis=-1).astype(scores.dtype))
    total = across.own_sum(jnp.sum(jnp.where(negative, values, 0), axis=-1))
    return jax.nn.softplus(-(margin + positive)) + total / jnp.maximum(count, 1)


# (positive [b], scores [B, C], negative [B, C], weights [B, C] or None, across) -> [b]
Loss = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None, Across], jax.Array]
