"""The functions of an expert that reads features: projection of the features, and a residual layer.

An expert computes ``x + relu(x @ down) @ up``, where x is the mean of the projections of the modalities that it reads.
The identity term makes training start from a working model. A small random ``up`` makes the experts differ from the
first step. All functions are pure; parameters are passed as arrays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def project(features: jax.Array, present: jax.Array, kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """Project the features of a modality to the width of the experts that read it.

    Args:
      features: ``[n, d_m]``. Rows that are not present are never used, so they may hold anything, including NaN.
      present: bool ``[n]``, whether the entity has the modality.
      kernel: ``[E, d_m, d]``, one matrix per expert that reads the modality.
      scale: ``[E]``, a learned factor per expert.

    Returns:
      ``[E, n, d]``, zero where not present.
    """
    known = jnp.where(present[:, None], features, jnp.zeros((), features.dtype)).astype(kernel.dtype)
    experts, width = kernel.shape[0], kernel.shape[2]
    # One matrix product for all experts.
    joined = known @ jnp.swapaxes(kernel, 0, 1).reshape(-1, experts * width)
    return scale[:, None, None] * joined.reshape(-1, experts, width).swapaxes(0, 1)


def transformed(parts: jax.Array, down: jax.Array, up: jax.Array) -> jax.Array:
    """Apply the residual layer of each expert: ``parts + relu(parts @ down) @ up``.

    Args:
      parts: ``[E, n, d]``, the input of each expert.
      down: ``[E, d, h]``.
      up: ``[E, h, d]``.

    Returns:
      ``[E, n, d]``.
    """
    inner = jax.nn.relu(jnp.einsum("end,edh->enh", parts, down))
    return parts + jnp.einsum("enh,ehd->end", inner, up)
