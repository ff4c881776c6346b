"""Experts that read features. Pure functions; the parameters are arrays passed in.

An expert says x + relu(x down) up of the mean x of the projections of the modalities it reads. The identity path makes
training start from a working model; a small random ``up`` makes the experts differ from the first step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def project(features: jax.Array, present: jax.Array, kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """A modality's features in the width of the experts that read it, at a learned scale.

    Args:
      features: ``[n, d_m]``. Rows that are not present may hold anything, NaN included: they are never used.
      present: bool ``[n]``.
      kernel: ``[E, d_m, d]``, one for each of these experts.
      scale: ``[E]``.

    Returns:
      ``[E, n, d]``, zero where not present.
    """
    known = jnp.where(present[:, None], features, jnp.zeros((), features.dtype)).astype(kernel.dtype)
    experts, width = kernel.shape[0], kernel.shape[2]
    # One product for all experts.
    joined = known @ jnp.swapaxes(kernel, 0, 1).reshape(-1, experts * width)
    return scale[:, None, None] * joined.reshape(-1, experts, width).swapaxes(0, 1)


def transformed(parts: jax.Array, down: jax.Array, up: jax.Array) -> jax.Array:
    """Each expert's own function of its part: ``[E, n, d]``.

    Args:
      parts: ``[E, n, d]``.
      down: ``[E, d, h]``.
      up: ``[E, h, d]``.
    """
    inner = jax.nn.relu(jnp.einsum("end,edh->enh", parts, down))
    return parts + jnp.einsum("enh,ehd->end", inner, up)
