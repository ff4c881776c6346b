"""Regularisers on the factors that a batch used; each gives one value a row."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def n3(moduli: jax.Array) -> jax.Array:
    """Nuclear 3-norm: sum_j |x_j|^3 over the absolute values ``[B, d]`` -> ``[B]`` (Lacroix et al., ICML 2018)."""
    return jnp.sum(moduli**3, axis=-1)


def l2(moduli: jax.Array) -> jax.Array:
    """Squared L2 norm: sum_j |x_j|^2 over the absolute values ``[B, d]`` -> ``[B]``."""
    return jnp.sum(moduli**2, axis=-1)


REGULARISERS = {"n3": n3, "l2": l2}
