"""Ranking losses of an answer against weighted negatives, one value per query.

Several devices may each hold some columns of ``[B, C]`` and b of the B rows. The argument ``across`` then reduces over
all columns; see ``Across``. With the default, b = B.
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
    """Compute the softmax loss ``-s + log(exp s + sum_c exp s_c)``, with weights on the gradients of negatives.

    Here s is the score of the answer and s_c that of negative c. Without weights, the gradient in s_c is p_c, the
    softmax share of the negative, and the gradient in s is minus the sum of all p_c. With weights, p_c becomes
    ``weight_c p_c`` in both, and the value of the loss does not change. Weights of 1 give exactly the value and
    gradient of the plain loss.

    Args:
      positive: ``[b]``, scores of the answers of the local rows.
      scores: ``[B, C]``, scores of the candidates.
      negative: bool ``[B, C]``. Other candidates are ignored.
      weights: ``[B, C]``, without gradient; None for the plain loss.
      across: reduces over all columns.

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
    # This adds a gradient and a value of exactly 0.
    return loss + (pull - jax.lax.stop_gradient(pull))


def margin_softmax_loss(
    positive: jax.Array,
    scores: jax.Array,
    negative: jax.Array,
    weights: jax.Array | None = None,
    across: Across = LOCAL,
) -> jax.Array:
    """Compute the softmax loss ``-s + log(exp s + sum_c weight_c exp s_c)``, in which a weight acts as a margin.

    ``log weight_c`` is added to the score of negative c. The scores can adapt to these margins until the weights no
    longer affect the gradient. Arguments and result are as in ``softmax_loss``.
    """
    powers = scores
    if weights is not None:
        negative = negative & (weights > 0)
        powers = scores + jnp.log(jnp.where(negative, weights, 1))
    return _log_sum(positive, jnp.where(negative, powers, -jnp.inf), across) - positive


def _log_sum(positive: jax.Array, powers: jax.Array, across: Across) -> jax.Array:
    """Compute ``log(exp positive + sum_c exp power_c)``, ``[b]``, for powers ``[B, C]`` that may be -inf."""
    # One maximum for all columns of a row, also on other devices, because their powers are summed.
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
    """Compute the loss ``-log sigmoid(margin + s) - mean_c weight_c log sigmoid(-(margin + s_c))``.

    The mean is over the negatives of a query (Sun et al., ICLR 2019). Distances as scores need a margin above 0. The
    other arguments and the result are as in ``softmax_loss``.

    Args:
      margin: added to every score.
    """
    values = jax.nn.softplus(margin + scores)
    if weights is not None:
        values = values * weights
    count = across.own_sum(jnp.sum(negative, axis=-1).astype(scores.dtype))
    total = across.own_sum(jnp.sum(jnp.where(negative, values, 0), axis=-1))
    return jax.nn.softplus(-(margin + positive)) + total / jnp.maximum(count, 1)


# (positive [b], scores [B, C], negative [B, C], weights [B, C] or None, across) -> [b]
Loss = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None, Across], jax.Array]
