"""The MoCME encoder, in which each expert encodes an entity from its structure, its features, or both.

Expert 0 is the structure: a learned row per entity. An expert of one modality reads the features of that modality; for
an entity that lacks it, it has a learned row. The last experts are joint experts: they read all features of an entity
and add a learned row of their own. The experts share no parameters, so each has to explain the triples without the
others. The encoding of an entity depends on the parameters and the entity alone.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mocme_jax.method.experts import project, transformed

STRUCTURE_INIT = 0.001
"""Initial standard deviation of the structure table."""
EXPERT_SCALE = 0.1
"""Initial size of the residual term of an expert, relative to the identity."""


class Carried(NamedTuple):
    """The encoder's input for n entities.

    Attributes:
      structure: ``[n, H d]``, the entities' rows of the structure table, with d columns per expert.
      features: one array ``[n, d_m]`` per feature modality.
      present: bool ``[n, M]``, whether the entity has the modality. Column 0 is the structure.
      evidence: ``[n]``, log(1 + number of training triples of the entity).
    """

    structure: jax.Array
    features: tuple[jax.Array, ...]
    present: jax.Array
    evidence: jax.Array


class Encoding(NamedTuple):
    """The encoder's output for n entities.

    Attributes:
      vectors: ``[n, H, d]``, one vector per expert.
      has: bool ``[n, H]``, whether the expert had features to encode; False for the structure.
      evidence: ``[n]``, log(1 + number of training triples of the entity).
    """

    vectors: jax.Array
    has: jax.Array
    evidence: jax.Array


class Encoder(nn.Module):
    """A Flax module with the parameters of the experts' encoders.

    The structure table is not a parameter of the module. It has one row per entity, and the required rows are passed in
    ``Carried``.

    Attributes:
      widths: the width d_m of each feature modality.
      width: the width d of an expert.
      reads: for each expert after the structure, the positions in ``widths`` of the feature modalities that it reads.
      joint: the number of joint experts, which are the last ones.
      hidden: the inner width h of an expert.
      initial_scale: the initial factor of projected features. Each expert learns one factor per modality that it reads.
    """

    widths: tuple[int, ...]
    width: int
    reads: tuple[tuple[int, ...], ...]
    joint: int
    hidden: int
    initial_scale: float

    @property
    def modalities(self) -> int:
        """The number of modalities M, including the structure."""
        return 1 + len(self.widths)

    @property
    def experts(self) -> int:
        """The number of experts H, including the structure."""
        return 1 + len(self.reads)

    @property
    def structure_width(self) -> int:
        """The width H d of the structure table."""
        return self.experts * self.width

    def setup(self):
        """Create the parameters."""
        normal, constant, d, h = nn.initializers.normal, nn.initializers.constant, self.width, self.hidden
        if not self.reads:  # checkpoints hold no empty arrays
            return
        # Parameters have unit variance and are scaled outside. Adam's steps are then the same fraction of every weight,
        # and one learning rate fits all.
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
        """Encode entities."""
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
        # The row of the structure, of a joint expert, and of any other expert without features to encode.
        keeps = ~has | (jnp.arange(self.experts) >= self.experts - self.joint)
        return Encoding(jnp.where(keeps[:, :, None], rows, 0).at[:, 1:].add(said), has, carried.evidence)
