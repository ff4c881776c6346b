"""Baselines that fuse the vectors of an entity instead of the scores of experts.

An entity has one vector, the weighted mean of its learned row and its projected features:

    v = sum_m weight_m p_m        over the modalities m that the entity has

- Equal weights, as in IKRL (Xie et al., IJCAI 2017): in a score f that is linear in both entities, the four energies of
  IKRL, structure or picture at either end, add up to f(h_S + h_I, r, t_S + t_I).
- Attention, as in NativE (Zhang et al., SIGIR 2024; arXiv 2406.17605): ``weight = softmax_m(a · tanh(p_m))`` with a
  learned vector a. NativE also divides by a temperature of the relation. That is left out, because every candidate
  would then need a vector of its own for every relation.

Neither has NativE's adversarial training or the loss of TransAE's autoencoder.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mocme_jax.method.encoder import EXPERT_SCALE, Carried, Encoding
from mocme_jax.method.experts import project, transformed


def fused_vectors(parts: jax.Array, present: jax.Array, attention: jax.Array | None = None) -> jax.Array:
    """Compute the weighted means of the parts of n entities.

    Args:
      parts: ``[n, M, d]``, 0 where not present.
      present: bool ``[n, M]``.
      attention: ``[d]``, the vector a; None for equal weights.

    Returns:
      ``[n, d]``; 0 for an entity without any part.
    """
    logits = jnp.zeros(present.shape, parts.dtype) if attention is None else jnp.tanh(parts) @ attention
    weights = jax.nn.softmax(jnp.where(present, logits, -1e9), axis=1)
    return jnp.einsum("nm,nmd->nd", jnp.where(present, weights, 0), parts)


class VectorFusion(nn.Module):
    """A Flax module in the place of ``Encoder``, with one expert whose vectors are fused.

    Attributes:
      widths: the width d_m of each feature modality.
      width: the width d of the vectors.
      attends: whether weights are those of attention; otherwise they are equal.
      hidden: the inner width h of the residual layer after each projection.
      initial_scale: the initial factor of projected features.
    """

    widths: tuple[int, ...]
    width: int
    attends: bool
    hidden: int
    initial_scale: float

    experts = 1
    reads = ()

    @property
    def modalities(self) -> int:
        """The number of modalities M, including the structure."""
        return 1 + len(self.widths)

    @property
    def structure_width(self) -> int:
        """The width of the structure table."""
        return self.width

    def setup(self):
        """Create the parameters, scaled as those of ``Encoder``."""
        normal, constant = nn.initializers.normal, nn.initializers.constant
        d, h, count = self.width, self.hidden, len(self.widths)
        self.kernels = [self.param(f"project_{m}", normal(1.0), (1, wide, d)) for m, wide in enumerate(self.widths)]
        self.scales = [self.param(f"scales_{m}", constant(self.initial_scale), (1,)) for m in range(count)]
        self.down = d**-0.5 * self.param("expert_down", normal(1.0), (count, d, h))
        self.up = EXPERT_SCALE * h**-0.5 * self.param("expert_up", normal(1.0), (count, h, d))
        self.attention = self.param("attention", nn.initializers.zeros, (d,)) if self.attends else None

    def __call__(self, carried: Carried) -> Encoding:
        """Encode entities."""
        present = carried.present
        rows = jnp.where(present[:, :1], carried.structure, 0)
        projected = [
            project(features, present[:, m + 1], kernel, scale)[0]
            for m, (features, kernel, scale) in enumerate(zip(carried.features, self.kernels, self.scales, strict=True))
        ]
        parts = transformed(jnp.stack(projected), self.down, self.up)
        parts = jnp.concatenate([rows[None], parts]).swapaxes(0, 1)
        vectors = fused_vectors(parts, present, self.attention)
        return Encoding(vectors[:, None], jnp.zeros((len(vectors), 1), bool), carried.evidence)


VECTOR_FUSIONS = {"vector_mean": False, "vector_attention": True}
"""Whether a fusion of vectors attends, by its name in ``model.fusion``."""
