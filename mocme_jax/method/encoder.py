"""The MoCME encoder: features and structure -> views -> modality parts -> one vector an entity.

The module holds parameters only; every computation is a pure function of ``experts``, ``mutual_information`` and
``fusion``. An entity's encoding depends on the parameters and on the entity alone: expectations run over a fixed
panel, never over the batch.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method import complementarity as fusion
from mocme_jax.method import experts
from mocme_jax.method.encoder_types import Carried, Encoding, Fused, Panel
from mocme_jax.method.mutual_information import ESTIMATORS, MEANS, panel_mean

FUSIONS = ("complementarity", "mean", "sum", "attention", "gate", "best")
RELEVANCES = ("none", "links", "gate", "structure")
GRANULARITIES = ("entity", "graph")


class Encoder(nn.Module):
    """Parameters of the encoder and the order of its parts.

    The structure table is none of them: it has a row an entity, and the rows that are wanted come with the rest of what
    entities carry.

    Attributes:
      widths: d_m of each feature modality.
      width: d.
      experts: K; 0 gives each modality one view, itself.
      structure_experts: whether the structure has experts too; else it is one view, itself.
      expert_hidden: h, the inner width of an expert.
      intra, inter: the fusion of views and of modalities, a word of ``FUSIONS``.
      estimator: a word of ``ESTIMATORS``.
      relevance: a word of ``RELEVANCES``. ``links`` is for modalities: views have no relevance then.
      links: of each feature modality, in nats, what relevance ``links`` is made of: see ``link_information``.
      granularity: a word of ``GRANULARITIES``: whose mutual information makes the weights. An ``entity``'s own
        pointwise estimate is as noisy as a single draw; of the ``graph`` it is the panel's mean, the MI itself, and
        costs nothing an entity. Weights then differ by which parts an entity has.
      temperature: of both softmaxes, in nats.
      mi_width: r, the width that parts are projected to (at random, fixed) before MI is estimated; 0 keeps d.
        Projecting can only lower MI (data processing inequality).
      weight_gradients: whether gradients flow through the redundancy into the parts.
      initial_scale: of each feature modality beside the structure.
      structure_bias: added to the relevance of the structure among the modalities, in nats.
      structure_init: standard deviation of the structure table, and of the vector for nothing, at the start.
      expert_scale: of what an expert adds to the identity, at the start.
      relative_scales: learn the modalities' scales in units of ``initial_scale``.
    """

    widths: tuple[int, ...]
    width: int
    experts: int
    structure_experts: bool
    expert_hidden: int
    intra: str
    inter: str
    estimator: str
    relevance: str
    links: tuple[float, ...]
    granularity: str
    temperature: float
    mi_width: int
    weight_gradients: bool
    initial_scale: float
    structure_bias: float
    structure_init: float
    expert_scale: float
    relative_scales: bool

    @property
    def modalities(self) -> int:
        """M: the structure and the feature modalities."""
        return 1 + len(self.widths)

    @property
    def views(self) -> int:
        """Views a modality: K, or 1 without experts."""
        return max(1, self.experts)

    @property
    def plain(self) -> int:
        """How many modalities, from the first on, have no experts."""
        return (0 if self.structure_experts else 1) if self.experts else self.modalities

    def setup(self):
        normal = nn.initializers.normal
        m, k, d, h = self.modalities, self.views, self.width, self.expert_hidden
        expert = m - self.plain
        self.nothing = self.param("nothing", normal(self.structure_init), (d,))
        self.kernels = [self.param(f"project_{i}", normal(1.0), (width, d)) for i, width in enumerate(self.widths)]
        if self.widths:  # checkpoints hold no empty arrays
            # In units of their start, Adam's steps are the same share of a small scale as of a large one.
            start, unit = (1.0, self.initial_scale) if self.relative_scales else (self.initial_scale, 1.0)
            self.scales = unit * self.param("scales", nn.initializers.constant(start), (m - 1,))
        if expert:
            # Unit-variance parameters with the scale outside, as in the projections: Adam's steps are then the same
            # share of every weight, and one learning rate fits all.
            self.down = d**-0.5 * self.param("expert_down", normal(1.0), (expert, k, d, h))
            self.up = self.expert_scale * h**-0.5 * self.param("expert_up", normal(1.0), (expert, k, h, d))
        self.view_gate = self._gate("view_gate", self.intra, k, (expert, k, d)) if expert else None
        self.modality_gate = self._gate("modality_gate", self.inter, m, (m, d))
        r = self._mi_projection().shape[1]
        _, init, fit = ESTIMATORS[self.estimator]
        self.view_estimator, self.modality_estimator = {}, {}
        if fit is not None and expert and self._weighs(self.intra, k):
            seen = k + (self.relevance == "structure")
            self.view_estimator = self.param(
                "view_estimator", lambda key: jax.vmap(lambda one: init(one, seen, r))(jax.random.split(key, expert))
            )
        if fit is not None and self._weighs(self.inter, m):
            self.modality_estimator = self.param("modality_estimator", lambda key: init(key, m, r))

    def _gate(self, name: str, kind: str, parts: int, shape: tuple[int, ...]) -> jax.Array | None:
        """A learned relevance for each part, or None where the fusion has no use for one."""
        learned = kind in ("attention", "gate", "best") or (kind == "complementarity" and self.relevance == "gate")
        if parts == 1 or not learned:
            return None
        if kind == "attention":
            # One query for all parts.
            shape = (*shape[:-2], 1, shape[-1])
        return self.param(name, nn.initializers.zeros, shape)

    @staticmethod
    def _weighs(kind: str, parts: int) -> bool:
        """Whether a fusion of so many parts needs mutual information."""
        return kind == "complementarity" and parts > 1

    def _mi_projection(self) -> np.ndarray:
        """Fixed ``[d, r]`` with orthonormal columns; the identity for r = 0 or r >= d."""
        return _random_projection(self.width, self.mi_width)

    def _seen(self, low: jax.Array) -> jax.Array:
        """Projected parts ``[..., r]`` as the estimators see them: on the sphere of radius sqrt(r)."""
        low = low if self.weight_gradients else jax.lax.stop_gradient(low)
        return low * jax.lax.rsqrt(jnp.mean(low * low, axis=-1, keepdims=True) + 1e-12)

    def _parts(self, carried: Carried, present: jax.Array, noise: jax.Array | None = None) -> list[jax.Array]:
        """Structure and projected features, M of ``[n, d]``, zero where missing."""
        parts = [jnp.where(present[:, :1], carried.structure, 0)]
        for i, (features, kernel) in enumerate(zip(carried.features, self.kernels, strict=True)):
            part = experts.project(features, present[:, i + 1], kernel, self.scales[i])
            parts.append(part if noise is None else part * noise[:, i])
        return parts

    def _pointwise(self, own, others, present, panel_present, parameters):
        """Pointwise MI ``[n, c, c]`` of parts against the panel, and the fitting loss of the estimator."""
        estimator, _, fit = ESTIMATORS[self.estimator]
        values = estimator(own, others, panel_present, jax.lax.stop_gradient(parameters))
        if fit is None:
            return values, jnp.zeros(())
        own, others = jax.lax.stop_gradient((own, others))
        return values, fit(own, others, panel_present, present, parameters)

    def _information(self, panel, present, parameters):
        """MI ``[c, c]`` of a panel's parts ``[P, c, r]``, and the fitting loss of the estimator."""
        if self.estimator in MEANS:
            return MEANS[self.estimator](panel, present), jnp.zeros(())
        pointwise, fit = self._pointwise(panel, panel, present, present, parameters)
        return panel_mean(pointwise, present), fit

    def _fuse_views(self, m: int, part: jax.Array, present: jax.Array, structure: jax.Array, panel: Panel | None):
        """Intra-modal fusion of modality m.

        Args:
          part: ``[n, d]``.
          present: bool ``[n]``.
          structure: ``[n, r]``, the structure as estimators see it.
          panel: None while the panel itself is encoded, which then is its own panel.

        Returns:
          The views as estimators see them, ``[n, K, r]`` (of a modality without experts ``[n, 1, r]``), and the fusion.
        """
        if m < self.plain:
            # Of its K views, which are one, the first has all the weight.
            first = jnp.pad(present[:, None].astype(part.dtype), ((0, 0), (0, self.views - 1)))
            none = jnp.zeros_like(first)
            return self._seen(part @ self._mi_projection())[:, None], Fused(part, first, none, jnp.zeros(()))
        row, k = m - self.plain, self.views
        views = experts.expert_views(part, self.down[row], self.up[row])
        fit, information = jnp.zeros(()), None
        mask = jnp.broadcast_to(present[:, None], (len(part), k))
        relevance = redundant = jnp.zeros(mask.shape, part.dtype)
        if self.view_gate is not None:
            kernel = jnp.broadcast_to(self.view_gate[row], (k, self.width))
            relevance = experts.along(views, kernel)
            if self.intra == "attention":
                relevance = relevance / self.width**0.5
        own = self._seen(experts.through(views, self._mi_projection()))
        if self._weighs(self.intra, k):
            joint, joint_mask = self._joined(own, present, structure)
            parameters = jax.tree.map(lambda leaf: leaf[row], self.view_estimator)
            if self.granularity == "entity":
                others, others_mask = joint, joint_mask
                if panel is not None:
                    others, others_mask = self._joined(panel.views[m], panel.present[:, m], panel.structure)
                pointwise, fit = self._pointwise(joint, others, joint_mask, others_mask, parameters)
            elif panel is None:
                information, fit = self._information(joint, joint_mask, parameters)
                pointwise = information[None]
            else:
                pointwise = panel.view_information[m][None]
            redundant = fusion.redundancy(pointwise[:, :k, :k], mask)
            if self.relevance == "structure":
                relevance = pointwise[:, :k, k]
        weights = fusion.fusion_weights(self.intra, relevance, redundant, mask, self.temperature)
        return own, Fused(experts.fuse_views(views, weights), weights, redundant, fit, information)

    def _joined(self, views: jax.Array, present: jax.Array, structure: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Views ``[n, K, r]`` with their mask ``[n, K]``, and the structure as the last part if it is wanted."""
        mask = jnp.broadcast_to(present[:, None], views.shape[:2])
        if self.relevance != "structure":
            return views, mask
        return jnp.concatenate([views, structure[:, None]], axis=1), jnp.pad(
            mask, ((0, 0), (0, 1)), constant_values=True
        )

    def _fuse_modalities(self, parts: jax.Array, present: jax.Array, panel: Panel) -> Fused:
        """Inter-modal fusion of ``parts [n, M, d]``."""
        fit = jnp.zeros(())
        relevance = redundant = jnp.zeros(present.shape, parts.dtype)
        if self.modality_gate is not None:
            relevance = jnp.einsum(
                "nmd,md->nm", parts, jnp.broadcast_to(self.modality_gate, (self.modalities, self.width))
            )
            if self.inter == "attention":
                relevance = relevance / self.width**0.5
        if self.relevance == "links":
            relevance = relevance + jnp.asarray([0.0, *self.links], parts.dtype)
        relevance = relevance.at[:, 0].add(self.structure_bias)
        if self._weighs(self.inter, self.modalities):
            if self.granularity == "graph":
                pointwise = panel.information[None]
            else:
                own = self._seen(parts @ self._mi_projection())
                pointwise, fit = self._pointwise(own, panel.parts, present, panel.present, self.modality_estimator)
            redundant = fusion.redundancy(pointwise, present)
            if self.relevance == "structure":
                # Of the structure with itself MI says nothing: its relevance is the bias.
                relevance = relevance + pointwise[:, :, 0].at[:, 0].set(0)
        weights = fusion.fusion_weights(self.inter, relevance, redundant, present, self.temperature)
        return Fused(fusion.fuse(parts, weights), weights, redundant, fit)

    def encode_panel(self, carried: Carried) -> Panel:
        """The panel's own parts, which every encoding is measured against, from what its entities carry."""
        present = carried.present
        parts = self._parts(carried, present)
        structure = self._seen(parts[0] @ self._mi_projection())
        views, fused = zip(
            *(self._fuse_views(m, part, present[:, m], structure, None) for m, part in enumerate(parts)), strict=True
        )
        seen = self._seen(jnp.stack([one.vectors for one in fused], axis=1) @ self._mi_projection())
        information, fit = None, sum(one.fit for one in fused) / self.modalities
        if self.granularity == "graph" and self._weighs(self.inter, self.modalities):
            information, own_fit = self._information(seen, present, self.modality_estimator)
            fit = fit + own_fit
        panel = Panel(views, seen, structure, present, tuple(one.information for one in fused), information, fit)
        # The estimators' own loss alone has a gradient then.
        return panel if self.weight_gradients else jax.lax.stop_gradient(panel)._replace(fit=fit)

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
        parts = self._parts(carried, present, noise)
        structure = self._seen(parts[0] @ self._mi_projection())
        intra = [self._fuse_views(m, part, present[:, m], structure, panel)[1] for m, part in enumerate(parts)]
        inter = self._fuse_modalities(jnp.stack([one.vectors for one in intra], axis=1), present, panel)
        vectors = jnp.where(present.any(axis=1)[:, None], inter.vectors, self.nothing)
        redundant = inter.redundant + jnp.stack([one.redundant.mean(axis=1) for one in intra], axis=1)
        return Encoding(
            vectors,
            inter.weights,
            jnp.stack([one.weights for one in intra], axis=1),
            present,
            jnp.mean(jnp.sum(jnp.where(present, redundant, 0), axis=1) / jnp.maximum(jnp.sum(present, axis=1), 1)),
            panel.fit if self.granularity == "graph" else inter.fit + sum(one.fit for one in intra) / self.modalities,
        )

    def structure_alone(self, structure: jax.Array, panel: Panel) -> jax.Array:
        """Vectors ``[n, d]`` of entities by their structure ``[n, d]`` alone, for a fraction of the work."""
        seen = self._seen(structure @ self._mi_projection())
        return self._fuse_views(0, structure, jnp.ones((len(structure),), bool), seen, panel)[1].vectors


@functools.lru_cache
def _random_projection(width: int, low: int) -> np.ndarray:
    """Kept, since it is asked for whenever a method is traced, and takes half a second at width 1,024."""
    if not 0 < low < width:
        projection = np.eye(width, dtype=np.float32)
    else:
        gaussian = np.random.default_rng(0).standard_normal((width, low))
        projection = np.linalg.qr(gaussian)[0].astype(np.float32)
    projection.flags.writeable = False
    return projection
