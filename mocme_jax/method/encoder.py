"""The MoCME encoder: every expert's own encoding of an entity, from its structure, its features, or both.

Expert 0 is the structure: a learned row for each entity. Others read one feature modality each; an entity that lacks it
has a learned row there. The last experts are joint ones: they read all that an entity has, and add a learned row of
their own. The experts share nothing, so that each has to explain the triples without the help of the others. An
entity's encoding depends on the parameters and on the entity alone.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mocme_jax.method.experts import project, transformed

STRUCTURE_INIT = 0.001
"""Standard deviation, at the start, of the structure table."""
EXPERT_SCALE = 0.1
"""Size, at the start, of what an expert adds to the identity."""


class Carried(NamedTuple):
    """What n entities carry: their rows of the structure table, their features, and which of these they have.

    Attributes:
      structure: ``[n, H d]``, a row of d for each of the H experts.
      features: one ``[n, d_m]`` per feature modality.
      present: bool ``[n, M]``; column 0 is the structure.
      evidence: ``[n]``, log(1 + training triples of the entity).
    """

    structure: jax.Array
    features: tuple[jax.Array, ...]
    present: jax.Array
    evidence: jax.Array


class Encoding(NamedTuple):
    """Encoded entities.

    Attributes:
      vectors: ``[n, H, d]``, what each expert says of the entity.
      has: bool ``[n, H]``, whether an expert had features to encode; False for the structure.
      evidence: ``[n]``, log(1 + training triples of the entity).
    """

    vectors: jax.Array
    has: jax.Array
    evidence: jax.Array


class Encoder(nn.Module):
    """Parameters of the experts' encoders.

    The structure table is not among them: it has one row per entity, and the rows that are wanted come in ``Carried``.

    Attributes:
      widths: d_m of each feature modality.
      width: d of each expert.
      reads: for each expert after the structure, the places in ``widths`` of the feature modalities it reads.
      joint: how many of these, the last, are joint experts.
      hidden: h, the inner width of an expert.
      initial_scale: of projected features, at the start; each expert learns one number per modality.
    """

    widths: tuple[int, ...]
    width: int
    reads: tuple[tuple[int, ...], ...]
    joint: int
    hidden: int
    initial_scale: float

    @property
    def modalities(self) -> int:
        """M: the structure and the feature modalities."""
        return 1 + len(self.widths)

    @property
    def experts(self) -> int:
        """H: the structure and those that read features."""
        return 1 + len(self.reads)

    @property
    def structure_width(self) -> int:
        """H d, the width of the structure table."""
        return self.experts * self.width

    def setup(self):
        """Creates the parameters."""
        normal, constant, d, h = nn.initializers.normal, nn.initializers.constant, self.width, self.hidden
        if not self.reads:  # checkpoints hold no empty arrays
            return
        # Unit-variance parameters with the scale outside: Adam's steps are then the same share of every weight, and one
        # learning rate fits all.
        copies = [sum(m in read for read in self.reads) for m in range(len(self.widths))]
        self.kernels = [
            self.param(f"project_{m}", normal(1.0), (count, width, d))
            for m, (count, width) in enumerate(zip(copies, self.widths, strict=True))
        ]
        self.scales = [
            self.param(f"scales_{m}", constant(self.initial_scale), (count,)) for m, count in enumerate(copies)
        ]
        self.down = d**-0.5 * self.param("expert_down", normal(1.0), (len(self.reads), d, h))
        self.up = EXPERT_SCALE * h**-0.5 * self.param("expert_up", normal(1.0), (len(self.reads), h, d))

    def __call__(self, carried: Carried) -> Encoding:
        """Encodes entities."""
        present = carried.present
        rows = carried.structure.reshape(-1, self.experts, self.width)
        rows = jnp.where(present[:, :1, None], rows, 0)
        if not self.reads:
            return Encoding(rows, jnp.zeros(rows.shape[:2], bool), carried.evidence)
        sums: list = [0.0] * len(self.reads)
        counts: list = [0] * len(self.reads)
        for m, (features, kernel) in enumerate(zip(carried.features, self.kernels, strict=True)):
            here = present[:, m + 1]
            parts = project(features, here, kernel, self.scales[m])
            for copy, expert in enumerate(e for e, read in enumerate(self.reads) if m in read):
                sums[expert] += parts[copy]
                counts[expert] += here
        count = jnp.stack([jnp.zeros_like(counts[0]), *counts], axis=1)
        mean = jnp.stack(sums) / jnp.maximum(count[:, 1:], 1).T[:, :, None]
        said = transformed(mean, self.down, self.up).swapaxes(0, 1)
        has = count > 0
        # The structure's row, a joint expert's, and any other's that had nothing to encode.
        keeps = ~has | (jnp.arange(self.experts) >= self.experts - self.joint)
        return Encoding(jnp.where(keeps[:, :, None], rows, 0).at[:, 1:].add(said), has, carried.evidence)
