"""Fusion: how the parts of an entity become one vector. The same rule serves views and modalities.

Parts are ``x [n, c, d]`` with a mask ``[n, c]``. Weights are 0 where a part is missing and sum to 1 over the rest
(over nothing, they are all 0).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mocme_jax.method.mutual_information import other_pairs


def masked_softmax(logits: jax.Array, present: jax.Array) -> jax.Array:
    """Softmax over the last axis of ``[..., c]`` among the present; exactly 0 elsewhere, all 0 if none is."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(present, logits, -jnp.inf), axis=-1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    powers = jnp.where(present, jnp.exp(jnp.where(present, logits - top, 0)), 0)
    return powers / jnp.maximum(jnp.sum(powers, axis=-1, keepdims=True), 1e-30)


def redundancy(pointwise: jax.Array, present: jax.Array) -> jax.Array:
    """Mean over the other present parts j of pmi_ij: ``[n, c, c], [n, c] -> [n, c]``; 0 for a part that is alone."""
    pairs = other_pairs(present)
    count = jnp.maximum(jnp.sum(pairs, axis=-1), 1)
    return jnp.sum(jnp.where(pairs, pointwise, 0), axis=-1) / count


def complementarity_weights(
    relevance: jax.Array, redundant: jax.Array, present: jax.Array, temperature: float
) -> jax.Array:
    """Masked softmax of (relevance - redundancy) / temperature, in nats; all arguments and the result ``[n, c]``.

    Max-relevance, min-redundancy (Peng et al., TPAMI 2005) as a soft choice. Without relevance pure noise would win,
    since noise shares nothing with anything.
    """
    return masked_softmax((relevance - redundant) / temperature, present)


def best_weights(relevance: jax.Array, present: jax.Array) -> jax.Array:
    """All weight on the most relevant present part ``[n, c]``; the gradient is that of the softmax."""
    soft = masked_softmax(relevance, present)
    top = jnp.argmax(jnp.where(present, relevance, -jnp.inf), axis=-1)
    hard = jax.nn.one_hot(top, present.shape[-1], dtype=soft.dtype) * present
    return soft + jax.lax.stop_gradient(hard - soft)


def fusion_weights(
    kind: str, relevance: jax.Array, redundant: jax.Array, present: jax.Array, temperature: float
) -> jax.Array:
    """Weights ``[n, c]`` of the parts under one of the ways of fusing.

    Args:
      kind: ``complementarity``; ``gate`` or ``attention``, a softmax of the relevance alone; ``best``, its maximum;
        ``mean``; or ``sum``, whose weights are 1 and do not sum to 1.
      relevance, redundant: ``[n, c]``, in nats.
      present: bool ``[n, c]``.
      temperature: of complementarity.
    """
    if kind == "sum":
        return present.astype(relevance.dtype)
    if kind == "mean":
        return masked_softmax(jnp.zeros_like(relevance), present)
    if kind == "best":
        return best_weights(relevance, present)
    if kind == "complementarity":
        return complementarity_weights(relevance, redundant, present, temperature)
    return masked_softmax(relevance, present)


def fuse(parts: jax.Array, weights: jax.Array) -> jax.Array:
    """sum_i weight_i x_i: ``[n, c, d], [n, c] -> [n, d]``."""
    return jnp.einsum("ncd,nc->nd", parts, weights)
