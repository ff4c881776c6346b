"""Experts: each gives one view of a modality. Pure functions; the parameters are arrays passed in."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def project(features: jax.Array, present: jax.Array, kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """A modality's features in the model's width, at a learned scale.

    Args:
      features: ``[n, d_m]``. Rows that are not present may hold anything, NaN included: they are never used.
      present: bool ``[n]``.
      kernel: ``[d_m, d]``.
      scale: a scalar. A modality enters small beside the structure; at unit scale it slows and hurts it.

    Returns:
      ``[n, d]``, zero where not present.
    """
    known = jnp.where(present[:, None], features, jnp.zeros((), features.dtype))
    return scale * (known.astype(kernel.dtype) @ kernel)


def expert_views(parts: jax.Array, down: jax.Array, up: jax.Array) -> jax.Array:
    """K views of each modality: view_k(x) = x + relu(x down_k) up_k.

    The identity path makes training start from a working model; a small random ``up`` makes the experts differ
    from the first step. Both contractions run over all modalities and experts at once.

    Args:
      parts: ``[n, M, d]``.
      down: ``[M, K, d, h]``.
      up: ``[M, K, h, d]``.

    Returns:
      ``[n, M, K, d]``.
    """
    modalities, experts, width, hidden = down.shape
    # [M, n, d] x [M, d, K h]: one batched product, M matrices wide enough to be fast.
    by_modality = jnp.swapaxes(parts, 0, 1)
    joined = jnp.swapaxes(down, 1, 2).reshape(modalities, width, experts * hidden)
    inner = jax.nn.relu(by_modality @ joined).reshape(modalities, len(parts), experts, hidden)
    residual = jnp.einsum("mnkh,mkhd->nmkd", inner, up)
    return parts[:, :, None, :] + residual
