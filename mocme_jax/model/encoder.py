"""The MoCME encoder: features and structure -> views -> modality parts -> one vector an entity.

The module holds parameters only; every computation is a pure function of ``experts``, ``mutual_information`` and
``fusion``. An entity's encoding depends on the parameters and on the entity alone: expectations run over a fixed
panel, never over the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.model import experts, fusion
from mocme_jax.model.mutual_information import ESTIMATORS

FUSIONS = ("complementarity", "mean", "sum", "attention", "gate", "best")
RELEVANCES = ("none", "gate", "structure")


class Inputs(NamedTuple):
    """What entities carry, on the device.

    Attributes:
      features: one ``[N, d_m]`` a feature modality.
      present: bool ``[N, M]``; column 0 is the structure.
      panel: int32 ``[P]`` entity ids.
    """

    features: tuple[jax.Array, ...]
    present: jax.Array
    panel: jax.Array


class Panel(NamedTuple):
    """The panel's parts as the MI estimators see them; r is the estimators' width.

    Attributes:
      views: ``[P, M, K, r]``.
      parts: ``[P, M, r]``.
      structure: ``[P, r]``.
      present: bool ``[P, M]``.
    """

    views: jax.Array
    parts: jax.Array
    structure: jax.Array
    present: jax.Array


class Encoding(NamedTuple):
    """Encoded entities and how they came about.

    Attributes:
      vectors: ``[n, d]``.
      modality_weights: ``[n, M]``.
      view_weights: ``[n, M, K]``, summing to 1 over K where the modality is present.
      present: bool ``[n, M]``.
      redundancy: a scalar, the mean redundancy over present parts, views and modalities together, in nats.
      fit: a scalar, the loss of the estimators' own parameters.
    """

    vectors: jax.Array
    modality_weights: jax.Array
    view_weights: jax.Array
    present: jax.Array
    redundancy: jax.Array
    fit: jax.Array


class Fused(NamedTuple):
    """Parts fused by one rule: ``vectors [n, d]``, ``weights [n, c]``, ``redundant [n, c]``, ``fit`` scalar."""

    vectors: jax.Array
    weights: jax.Array
    redundant: jax.Array
    fit: jax.Array


class Encoder(nn.Module):
    """Parameters of the encoder and the order of its parts.

    Attributes:
      entities: N.
      widths: d_m of each feature modality.
      width: d.
      experts: K; 0 gives each modality one view, itself.
      expert_hidden: h, the inner width of an expert.
      intra, inter: the fusion of views and of modalities, a word of ``FUSIONS``.
      estimator: a word of ``ESTIMATORS``.
      relevance: a word of ``RELEVANCES``.
      temperature: of both softmaxes, in nats.
      mi_width: r, the width that parts are projected to (at random, fixed) before MI is estimated; 0 keeps d.
        Projecting can only lower MI (data processing inequality).
      weight_gradients: whether gradients flow through the redundancy into the parts.
      initial_scale: of each feature modality beside the structure.
      structure_bias: initial relevance of the structure, in nats.
      structure_init: standard deviation of the table at the start.
    """

    entities: int
    widths: tuple[int, ...]
    width: int
    experts: int
    expert_hidden: int
    intra: str
    inter: str
    estimator: str
    relevance: str
    temperature: float
    mi_width: int
    weight_gradients: bool
    initial_scale: float
    structure_bias: float
    structure_init: float

    @property
    def modalities(self) -> int:
        """M: the structure and the feature modalities."""
        return 1 + len(self.widths)

    @property
    def views(self) -> int:
        """Views a modality: K, or 1 without experts."""
        return max(1, self.experts)

    def setup(self):
        normal = nn.initializers.normal
        m, k, d, h = self.modalities, self.views, self.width, self.expert_hidden
        self.structure = self.param("structure", normal(self.structure_init), (self.entities, d))
        self.nothing = self.param("nothing", normal(self.structure_init), (d,))
        self.kernels = [
            self.param(f"project_{i}", normal(1.0), (width, d)) for i, width in enumerate(self.widths)
        ]
        self.scales = self.param("scales", nn.initializers.constant(self.initial_scale), (m - 1,))
        if self.experts:
            self.down = self.param("expert_down", normal(d**-0.5), (m, k, d, h))
            self.up = self.param("expert_up", normal(0.1 * h**-0.5), (m, k, h, d))
        self.view_gate = self._fusion_parameters("view", self.intra, (m, k))
        self.modality_gate = self._fusion_parameters("modality", self.inter, (m,))
        if self.inter != "attention":
            bias = self.structure_bias * jnp.eye(1, m)[0]
            self.modality_bias = self.param("modality_bias", lambda key: bias)
        width = self._mi_projection().shape[1]
        init = ESTIMATORS[self.estimator][1]
        learned = ESTIMATORS[self.estimator][2] is not None
        self.view_estimator, self.modality_estimator = {}, {}
        if learned and self._weighs(self.intra, k):
            seen = k + (self.relevance == "structure")
            self.view_estimator = self.param(
                "view_estimator",
                lambda key: jax.vmap(lambda one: init(one, seen, width, width))(jax.random.split(key, m)),
            )
        if learned and self._weighs(self.inter, m):
            self.modality_estimator = self.param("modality_estimator", lambda key: init(key, m, width, width))

    def _weighs(self, kind: str, parts: int) -> bool:
        """Whether a fusion of so many parts needs mutual information."""
        return kind == "complementarity" and parts > 1

    def _fusion_parameters(self, name: str, kind: str, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        """Learned parameters of one fusion: a gate a part, or one attention query."""
        zeros = nn.initializers.zeros
        if kind == "attention":
            shape = shape[:-1]
        elif kind in ("mean", "sum") or (kind == "complementarity" and self.relevance != "gate"):
            return {}
        return {"kernel": self.param(f"{name}_gate", zeros, (*shape, self.width))}

    def _mi_projection(self) -> np.ndarray:
        """Fixed ``[d, r]`` with orthonormal columns; the identity for r = 0 or r >= d."""
        if not 0 < self.mi_width < self.width:
            return np.eye(self.width, dtype=np.float32)
        gaussian = np.random.default_rng(0).standard_normal((self.width, self.mi_width))
        return np.linalg.qr(gaussian)[0].astype(np.float32)

    def _mi_parts(self, parts: jax.Array) -> jax.Array:
        """Parts ``[..., d]`` as the estimators see them: projected, on the sphere of radius sqrt(r)."""
        parts = parts if self.weight_gradients else jax.lax.stop_gradient(parts)
        low = parts @ self._mi_projection()
        norm = jax.lax.rsqrt(jnp.sum(low * low, axis=-1, keepdims=True) + 1e-12)
        return low * norm * low.shape[-1] ** 0.5

    def _raw_parts(self, inputs: Inputs, ids: jax.Array, present: jax.Array) -> jax.Array:
        """Structure and projected features ``[n, M, d]``, zero where missing."""
        rows = [jnp.where(present[:, :1], self.structure[ids], 0)]
        for i, (features, kernel) in enumerate(zip(inputs.features, self.kernels, strict=True)):
            rows.append(experts.project(features[ids], present[:, i + 1], kernel, self.scales[i]))
        return jnp.stack(rows, axis=1)

    def _views(self, inputs: Inputs, ids: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Parts ``[n, M, d]`` and their views ``[n, M, K, d]``."""
        parts = self._raw_parts(inputs, ids, present)
        views = experts.expert_views(parts, self.down, self.up) if self.experts else parts[:, :, None, :]
        return parts, views

    def _fuse(self, kind, parts, present, pointwise, reference, kernel, bias, temperature) -> Fused:
        """Fuses ``parts [n, c, d]``. ``pointwise`` is None, or ``[n, c, c']`` whose column ``reference`` is the
        structure."""
        c = parts.shape[1]
        none = jnp.zeros(present.shape, parts.dtype)
        redundant = none
        if kind == "attention":
            weights = fusion.attention_weights(parts, kernel, present)
        elif kind == "sum":
            weights = present.astype(parts.dtype)
        elif kind == "mean":
            weights = fusion.mean_weights(present).astype(parts.dtype)
        else:
            relevance = none + bias
            if kernel is not None:
                relevance = fusion.gate(parts, kernel, bias)
            if pointwise is not None:
                redundant = fusion.redundancy(pointwise[:, :, :c], present)
                if self.relevance == "structure":
                    relevance = relevance + pointwise[:, :c, reference]
            if kind == "best":
                weights = fusion.best_weights(relevance, present)
            else:
                weights = fusion.complementarity_weights(relevance, redundant, present, temperature)
        return Fused(fusion.fuse(parts, weights), weights, redundant, jnp.zeros(()))

    def _fuse_views(self, views: jax.Array, structure: jax.Array, present: jax.Array, panel: Panel | None) -> Fused:
        """Intra-modal fusion, one call for all modalities: views ``[n, M, K, d]`` -> vectors ``[n, M, d]``."""
        k = self.views
        own = self._mi_parts(views)
        others = panel.views if panel is not None else own
        reference, other_reference = self._mi_parts(structure), None
        panel_present = panel.present if panel is not None else present
        if self.relevance == "structure":
            other_reference = panel.structure if panel is not None else reference

        def one(views, own, others, present, panel_present, kernel, parameters):
            mask = jnp.broadcast_to(present[:, None], (len(views), k))
            panel_mask = jnp.broadcast_to(panel_present[:, None], (len(others), k))
            pointwise, fit = None, jnp.zeros(())
            if weighs:
                pointwise, fit = self._pointwise(
                    own, others, mask, panel_mask, parameters, reference, other_reference
                )
            fused = self._fuse(
                self.intra, views, mask, pointwise, k, kernel, jnp.zeros((k,)), self.temperature
            )
            return fused._replace(fit=fit)

        kernel = self.view_gate.get("kernel")
        weighs = self._weighs(self.intra, k)
        axes = (1, 1, 1, 1, 1, None if kernel is None else 0, 0)
        return jax.vmap(one, in_axes=axes, out_axes=Fused(1, 1, 1, 0))(
            views, own, others, present, panel_present, kernel, self.view_estimator
        )

    def _pointwise(self, own, others, mask, panel_mask, parameters, reference, other_reference):
        """Pointwise MI ``[n, c, c']`` of parts against the panel, and the estimator's fitting loss."""
        estimator, _, fit = ESTIMATORS[self.estimator]
        if other_reference is not None:
            own = jnp.concatenate([own, reference[:, None]], axis=1)
            others = jnp.concatenate([others, other_reference[:, None]], axis=1)
            mask = jnp.concatenate([mask, jnp.ones((len(mask), 1), bool)], axis=1)
            panel_mask = jnp.concatenate([panel_mask, jnp.ones((len(panel_mask), 1), bool)], axis=1)
        fixed = jax.lax.stop_gradient(parameters)
        values = estimator(own, others, panel_mask, fixed)
        if fit is None:
            return values, jnp.zeros(())
        stopped = jax.lax.stop_gradient((own, others))
        return values, fit(*stopped, panel_mask, mask, parameters)

    def _fuse_modalities(self, parts: jax.Array, present: jax.Array, panel: Panel | None) -> Fused:
        """Inter-modal fusion: parts ``[n, M, d]`` -> vectors ``[n, d]``."""
        pointwise, fit = None, jnp.zeros(())
        if self._weighs(self.inter, self.modalities):
            own = self._mi_parts(parts)
            others, panel_present = (panel.parts, panel.present) if panel is not None else (own, present)
            pointwise, fit = self._pointwise(
                own, others, present, panel_present, self.modality_estimator, None, None
            )
        kernel = self.modality_gate.get("kernel")
        bias = None if self.inter == "attention" else self.modality_bias
        fused = self._fuse(self.inter, parts, present, pointwise, 0, kernel, bias, self.temperature)
        return fused._replace(fit=fit)

    def encode_panel(self, inputs: Inputs) -> Panel:
        """The panel's own parts, which every encoding is measured against."""
        present = inputs.present[inputs.panel]
        raw, views = self._views(inputs, inputs.panel, present)
        parts = self._fuse_views(views, raw[:, 0], present, None).vectors
        panel = Panel(self._mi_parts(views), self._mi_parts(parts), self._mi_parts(raw[:, 0]), present)
        return panel if self.weight_gradients else jax.lax.stop_gradient(panel)

    def __call__(
        self, inputs: Inputs, ids: jax.Array, panel: Panel, keep_structure: jax.Array | None = None
    ) -> Encoding:
        """Encodes entities.

        Args:
          inputs: features and masks of all entities.
          ids: int32 ``[n]``.
          panel: from ``encode_panel`` with the same parameters.
          keep_structure: bool ``[n]``, False where the structure counts as missing; None keeps all.
        """
        present = inputs.present[ids]
        if keep_structure is not None:
            present = present.at[:, 0].set(present[:, 0] & keep_structure)
        raw, views = self._views(inputs, ids, present)
        intra = self._fuse_views(views, raw[:, 0], present, panel)
        inter = self._fuse_modalities(intra.vectors, present, panel)
        vectors = jnp.where(present.any(axis=1)[:, None], inter.vectors, self.nothing)
        counted = jnp.maximum(jnp.sum(present), 1)
        redundant = jnp.sum(jnp.where(present, intra.redundant.mean(axis=-1) + inter.redundant, 0)) / counted
        return Encoding(
            vectors, inter.weights, intra.weights, present, redundant, jnp.mean(intra.fit) + inter.fit
        )
