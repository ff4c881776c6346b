"""Experts: each gives one view of a modality. Pure functions; the parameters are arrays passed in.

An expert is view_k(x) = x + relu(x down_k) up_k. The identity path makes training start from a working model; a small
random ``up`` makes the experts differ from the first step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Views(NamedTuple):
    """The K views of one modality, factored: view_k = part + inner_k up_k.

    What is asked of views is linear in them, and the dense ``[n, K, d]`` views would cost five times the memory
    traffic. These are ``complementarity.Parts``.

    Attributes:
      part: ``[n, d]``.
      inner: ``[n, K, h]``.
      up: ``[K, h, d]``.
    """

    part: jax.Array
    inner: jax.Array
    up: jax.Array

    @property
    def width(self) -> int:
        """The width d of each part."""
        return self.part.shape[-1]

    def dense(self) -> jax.Array:
        """The views themselves, ``[n, K, d]``."""
        return self.part[:, None, :] + jnp.einsum("nkh,khd->nkd", self.inner, self.up)

    def through(self, matrix: jax.Array) -> jax.Array:
        """Each view times one matrix ``[d, r]``: ``[n, K, r]``."""
        return (self.part @ matrix)[:, None, :] + jnp.einsum("nkh,khr->nkr", self.inner, self.up @ matrix)

    def along(self, kernel: jax.Array) -> jax.Array:
        """Each view times its own vector of ``kernel [K, d]``: ``[n, K]``."""
        inner_kernel = jnp.einsum("khd,kd->kh", self.up, kernel)
        return self.part @ kernel.T + jnp.einsum("nkh,kh->nk", self.inner, inner_kernel)

    def weighted(self, weights: jax.Array) -> jax.Array:
        """sum_k weight_k view_k for weights ``[n, K]``: ``[n, d]``."""
        experts, hidden, width = self.up.shape
        inner = (self.inner * weights[:, :, None]).reshape(-1, experts * hidden)
        return jnp.sum(weights, axis=1, keepdims=True) * self.part + inner @ self.up.reshape(experts * hidden, width)


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


def expert_views(part: jax.Array, down: jax.Array, up: jax.Array) -> Views:
    """All experts of one modality at once: one product ``[n, d] x [d, K h]``.

    Args:
      part: ``[n, d]``.
      down: ``[K, d, h]``.
      up: ``[K, h, d]``.
    """
    experts, width, hidden = down.shape
    joined = jnp.swapaxes(down, 0, 1).reshape(width, experts * hidden)
    return Views(part, jax.nn.relu(part @ joined).reshape(-1, experts, hidden), up)
