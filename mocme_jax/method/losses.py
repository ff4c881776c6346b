"""The two losses over a positive and weighted negatives.

The columns of the scores are spread over the devices, C on each, and all have the same rows, B; every device gets the
losses of its own share of the rows. One device, which holds all columns and all rows, is the plain case.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mocme_jax.parallel.device_axis import AXIS, gathered, share, summed_share

WEIGHTS_IN = ("gradient", "sum")


def softmax_loss(
    positive: jax.Array,
    scores: jax.Array,
    negative: jax.Array,
    weights: jax.Array | None,
    weights_in: str,
    devices: int,
) -> jax.Array:
    """-positive + log(exp positive + sum_c exp score_c), each negative weighed.

    The plain loss pulls a score_c down by p_c, its share of the sum, and the positive up by the sum of these. Weights
    in the ``gradient`` make that weight_c p_c, and leave the value plain. In the ``sum`` they stand before each power,
    as log weight added to the score: there they are margins, which are gone from the gradient once scores have moved by
    them. Weights of 1 give the plain form, value and gradient, exactly.

    Args:
      positive: ``[B / D]``, of this device's rows.
      scores: ``[B, C]``.
      negative: bool ``[B, C]``; other columns are left out.
      weights: ``[B, C]``, without gradient, or None for the plain form.
      weights_in: a word of ``WEIGHTS_IN``.
      devices: D.

    Returns:
      ``[B / D]``.
    """
    powers = scores
    if weights is not None and weights_in == "sum":
        negative = negative & (weights > 0)
        powers = scores + jnp.log(jnp.where(negative, weights, 1))
    powers = jnp.where(negative, powers, -jnp.inf)
    # One top for all columns of a row, wherever they are: their powers are summed.
    highest = jax.lax.pmax(jax.lax.stop_gradient(jnp.max(powers, axis=-1, initial=-jnp.inf)), AXIS)
    top = jnp.maximum(gathered(jax.lax.stop_gradient(positive)), highest)
    total = summed_share(jnp.sum(jnp.exp(powers - top[:, None]), axis=-1))
    own_top = share(top, devices)
    log_sum = own_top + jnp.log(jnp.exp(positive - own_top) + total)
    loss = log_sum - positive
    if weights is None or weights_in == "sum":
        return loss
    shares = jnp.exp(jax.lax.stop_gradient(powers) - gathered(jax.lax.stop_gradient(log_sum))[:, None])
    more = jnp.where(negative, (weights - 1) * shares, 0)
    pull = summed_share(jnp.sum(more * jnp.where(negative, scores, 0), axis=-1))
    pull = pull - summed_share(jnp.sum(more, axis=-1)) * positive
    # Exactly 0 in value.
    return loss + (pull - jax.lax.stop_gradient(pull))


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
