"""The MoCME encoder: structure and features -> views -> modalities -> one vector per entity.

The module holds parameters; what is computed from them are the functions of ``experts`` and ``complementarity``. An
entity's encoding depends on the parameters and on the entity alone: mutual information is estimated on a fixed panel
of entities, never on the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.complementarity import MI_WIDTH, Fused, Fusion, Vectors, estimate, fuse
from mocme_jax.method.experts import expert_views, project

STRUCTURE_INIT = 0.001
"""Standard deviation, at the start, of the structure table and of the vector for entities that carry nothing."""
EXPERT_SCALE = 0.1
"""Size, at the start, of what an expert adds to the identity."""


class Carried(NamedTuple):
    """What n entities carry: their rows of the structure table, their features, and which of these they have.

    Attributes:
      structure: ``[n, d]``.
      features: one ``[n, d_m]`` per feature modality.
      present: bool ``[n, M]``; column 0 is the structure.
    """

    structure: jax.Array
    features: tuple[jax.Array, ...]
    present: jax.Array


class Panel(NamedTuple):
    """What was estimated on the panel.

    Attributes:
      views: per modality ``[K, K]``, mutual information of its views in nats; None if the fusion wants none.
      modalities: ``[M, M]``, the same of the modalities.
      fit: a scalar, the loss that fits the estimators' parameters.
    """

    views: tuple[jax.Array | None, ...]
    modalities: jax.Array | None
    fit: jax.Array


class Encoding(NamedTuple):
    """Encoded entities and how they came about.

    Attributes:
      vectors: ``[n, d]``.
      modality_weights: ``[n, M]``.
      view_weights: ``[n, M, K]``, adding up to 1 over K where the modality is present.
      present: bool ``[n, M]``.
      redundancy: a scalar in nats: the mean over entities of the mean over each one's present modalities.
      fit: a scalar, the loss that fits the estimators' parameters.
    """

    vectors: jax.Array
    modality_weights: jax.Array
    view_weights: jax.Array
    present: jax.Array
    redundancy: jax.Array
    fit: jax.Array


class Encoder(nn.Module):
    """Parameters of the encoder and the order of its parts.

    The structure table is not among them: it has one row per entity, and the rows that are wanted come in ``Carried``.
    The structure is one view; each feature modality has K.

    Attributes:
      widths: d_m of each feature modality.
      width: d.
      experts: K; 0 gives each modality one view, itself.
      expert_hidden: h, the inner width of an expert.
      intra, inter: the fusion of views and of modalities.
      prior: ``[M]``, relevance in nats that is known of each modality beforehand, the structure first.
      initial_scale: of each feature modality beside the structure.
      relative_scales: learn the modalities' scales in units of ``initial_scale``.
    """

    widths: tuple[int, ...]
    width: int
    experts: int
    expert_hidden: int
    intra: Fusion
    inter: Fusion
    prior: tuple[float, ...]
    initial_scale: float
    relative_scales: bool

    @property
    def modalities(self) -> int:
        """M: the structure and the feature modalities."""
        return 1 + len(self.widths)

    @property
    def views(self) -> int:
        """Views of a modality: K, or 1 without experts."""
        return max(1, self.experts)

    def setup(self):
        """Creates the parameters."""
        normal = nn.initializers.normal
        m, k, d, h = self.modalities, self.views, self.width, self.expert_hidden
        self.nothing = self.param("nothing", normal(STRUCTURE_INIT), (d,))
        self.kernels = [self.param(f"project_{i}", normal(1.0), (width, d)) for i, width in enumerate(self.widths)]
        if self.widths:  # checkpoints hold no empty arrays
            # In units of their start, Adam's steps are the same share of a small scale as of a large one.
            start, unit = (1.0, self.initial_scale) if self.relative_scales else (self.initial_scale, 1.0)
            self.scales = unit * self.param("scales", nn.initializers.constant(start), (m - 1,))
        self.view_fusion = self.modality_fusion = {}
        if self.experts and self.widths:
            # Unit-variance parameters with the scale outside, as in the projections: Adam's steps are then the same
            # share of every weight, and one learning rate fits all.
            self.down = d**-0.5 * self.param("expert_down", normal(1.0), (m - 1, k, d, h))
            self.up = EXPERT_SCALE * h**-0.5 * self.param("expert_up", normal(1.0), (m - 1, k, h, d))
            self.view_fusion = self._learned("view", self.intra, k, m - 1)
        self.modality_fusion = self._learned("modality", self.inter, m, None)

    def _learned(self, name: str, fusion: Fusion, parts: int, copies: int | None) -> dict[str, Any]:
        """The parameters of a fusion of so many parts, ``kernel`` and ``estimator``, stacked over copies."""

        def stacked(key, make):
            return make(key) if copies is None else jax.vmap(make)(jax.random.split(key, copies))

        found: dict[str, Any] = {}
        if parts > 1 and fusion.init(parts, self.width) is not None:
            found["kernel"] = self.param(
                f"{name}_kernel", lambda key: stacked(key, lambda _: fusion.init(parts, self.width))
            )
        init = None if fusion.estimator is None else fusion.estimator.init
        if parts > 1 and init is not None:
            low = min(self.width, MI_WIDTH)
            found["estimator"] = self.param(
                f"{name}_estimator", lambda key: stacked(key, lambda one: init(one, parts, low))
            )
        return found

    def _parts(self, carried: Carried, present: jax.Array, noise: jax.Array | None = None) -> list[jax.Array]:
        """Structure and projected features, M of ``[n, d]``, zero where missing."""
        parts = [jnp.where(present[:, :1], carried.structure, 0)]
        for i, (features, kernel) in enumerate(zip(carried.features, self.kernels, strict=True)):
            part = project(features, present[:, i + 1], kernel, self.scales[i])
            parts.append(part if noise is None else part * noise[:, i])
        return parts

    def _fuse_views(
        self, m: int, part: jax.Array, present: jax.Array, panel: Panel | None
    ) -> tuple[Fused, jax.Array | None, jax.Array]:
        """Intra-modal fusion of modality m.

        Args:
          m: 0 for the structure.
          part: ``[n, d]``.
          present: bool ``[n]``.
          panel: what was estimated; None to estimate it now, of the panel's own parts.

        Returns:
          The fusion, the information of the views, and the loss of its estimator.
        """
        if m == 0 or not self.experts:
            # One view, which has all the weight.
            first = jnp.pad(present[:, None].astype(part.dtype), ((0, 0), (0, self.views - 1)))
            return Fused(part, first, jnp.zeros_like(first)), None, jnp.zeros(())
        views = expert_views(part, self.down[m - 1], self.up[m - 1])
        mask = jnp.broadcast_to(present[:, None], (len(part), self.views))
        learned = jax.tree.map(lambda leaf: leaf[m - 1], self.view_fusion)
        if panel is None:
            information, fit = estimate(self.intra, views, mask, learned.get("estimator", {}))
        else:
            information, fit = panel.views[m], jnp.zeros(())
        prior = jnp.zeros((self.views,), part.dtype)
        return fuse(self.intra, views, mask, prior, learned.get("kernel"), information), information, fit

    def encode_panel(self, carried: Carried) -> Panel:
        """Estimates what fusions want to know, from what the panel's entities carry."""
        present = carried.present
        parts = enumerate(self._parts(carried, present))
        fused, information, fits = zip(*(self._fuse_views(m, x, present[:, m], None) for m, x in parts), strict=True)
        joint = Vectors(jnp.stack([one.vectors for one in fused], axis=1))
        between, fit = estimate(self.inter, joint, present, self.modality_fusion.get("estimator", {}))
        return Panel(information, between, sum(fits) / self.modalities + fit)

    def __call__(
        self, carried: Carried, panel: Panel, keep: jax.Array | None = None, noise: jax.Array | None = None
    ) -> Encoding:
        """Encodes entities.

        Args:
          carried: what they carry.
          panel: from ``encode_panel`` with the same parameters.
          keep: bool ``[n, M]``, False where a modality counts as missing; None keeps all.
          noise: ``[n, M - 1, d]``, what projected features are multiplied by in training; None for nothing.
        """
        present = carried.present if keep is None else carried.present & keep
        parts = enumerate(self._parts(carried, present, noise))
        intra = [self._fuse_views(m, part, present[:, m], panel)[0] for m, part in parts]
        joint = Vectors(jnp.stack([one.vectors for one in intra], axis=1))
        prior = jnp.asarray(self.prior, joint.x.dtype)
        inter = fuse(self.inter, joint, present, prior, self.modality_fusion.get("kernel"), panel.modalities)
        vectors = jnp.where(present.any(axis=1)[:, None], inter.vectors, self.nothing)
        redundant = inter.redundant + jnp.stack([one.redundant.mean(axis=1) for one in intra], axis=1)
        return Encoding(
            vectors,
            inter.weights,
            jnp.stack([one.weights for one in intra], axis=1),
            present,
            jnp.mean(jnp.sum(jnp.where(present, redundant, 0), axis=1) / jnp.maximum(jnp.sum(present, axis=1), 1)),
            panel.fit,
        )


def choose_panel(present: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Ids of a panel in which every modality is represented.

    Args:
      present: bool ``[N, M]``, column 0 the structure.
      size: P; at most N are taken.
      seed: of the choice.

    Returns:
      int32 ``[min(P, N)]``, distinct: an equal share per modality of entities that have it, those with the most other
      modalities first, since pairs of modalities are estimated on entities that have both; then any entity.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(present))
    rich = order[np.argsort(-present[order].sum(axis=1), kind="stable")]
    share = -(-size // present.shape[1])
    chosen = [rich[present[rich, m]][:share] for m in range(1, present.shape[1])]
    ids = np.concatenate([*chosen, order])
    _, first = np.unique(ids, return_index=True)
    return ids[np.sort(first)][:size].astype(np.int32)
