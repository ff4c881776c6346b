"""CMKF: complementarity-guided fusion of parts. The same functions serve views of a modality and modalities.

An entity has c parts, of which some may be missing: ``present [n, c]``. A fusion gives each part a weight; weights are
0 where a part is missing and, but for the plain sum, add up to 1 over the present parts. The fused vector is
``sum_i weight_i x_i``.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.mutual_information import ESTIMATORS, Estimator, other_pairs

MI_WIDTH = 32
"""Parts are projected to this width before mutual information is estimated, which can only lower it."""


class Parts(Protocol):
    """The parts of n entities; ``Vectors`` and ``experts.Views`` are such."""

    @property
    def width(self) -> int:
        """The width d of each part."""

    def along(self, kernel: jax.Array) -> jax.Array:
        """Each part times its own vector of ``kernel [c, d]``: ``[n, c]``."""

    def through(self, matrix: jax.Array) -> jax.Array:
        """Each part times one matrix ``[d, r]``: ``[n, c, r]``."""

    def weighted(self, weights: jax.Array) -> jax.Array:
        """``sum_i weight_i x_i`` for weights ``[n, c]``: ``[n, d]``."""


class Vectors(NamedTuple):
    """Parts as they are: ``x [n, c, d]``."""

    x: jax.Array

    @property
    def width(self) -> int:
        """The width d of each part."""
        return self.x.shape[-1]

    def along(self, kernel: jax.Array) -> jax.Array:
        """Each part times its own vector of ``kernel [c, d]``: ``[n, c]``."""
        return jnp.einsum("nmd,md->nm", self.x, kernel)

    def through(self, matrix: jax.Array) -> jax.Array:
        """Each part times one matrix ``[d, r]``: ``[n, c, r]``."""
        return self.x @ matrix

    def weighted(self, weights: jax.Array) -> jax.Array:
        """``sum_i weight_i x_i`` for weights ``[n, c]``: ``[n, d]``."""
        return jnp.einsum("ncd,nc->nd", self.x, weights)


def masked_softmax(logits: jax.Array, present: jax.Array) -> jax.Array:
    """Softmax over the last axis of ``[..., c]`` among the present; exactly 0 elsewhere, all 0 if none is."""
    top = jax.lax.stop_gradient(jnp.max(jnp.where(present, logits, -jnp.inf), axis=-1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    powers = jnp.where(present, jnp.exp(jnp.where(present, logits - top, 0)), 0)
    return powers / jnp.maximum(jnp.sum(powers, axis=-1, keepdims=True), 1e-30)


def redundancy(information: jax.Array, present: jax.Array) -> jax.Array:
    """Mean MI with the other present parts: ``[c, c], [n, c] -> [n, c]``; 0 for a part that is alone."""
    pairs = other_pairs(present)
    count = jnp.maximum(jnp.sum(pairs, axis=-1), 1)
    return jnp.sum(jnp.where(pairs, information[None], 0), axis=-1) / count


def complementarity_weights(
    relevance: jax.Array, redundant: jax.Array, present: jax.Array, temperature: float = 1.0
) -> jax.Array:
    """Masked softmax of (relevance - redundancy) / temperature, in nats; arguments and result ``[n, c]``.

    Max-relevance, min-redundancy (Peng et al., TPAMI 2005) as a soft choice. Without relevance pure noise would win,
    since noise shares nothing with anything.
    """
    return masked_softmax((relevance - redundant) / temperature, present)


class Fusion(Protocol):
    """One way to weigh parts; hashable.

    Attributes:
      estimator: of the mutual information between parts that ``weights`` wants; None if it wants none.
    """

    @property
    def estimator(self) -> Estimator | None:
        """See above."""

    def init(self, parts: int, width: int) -> jax.Array | None:
        """The fusion's own learned kernel for c parts of width d; None if it learns none."""

    def weights(
        self,
        parts: Parts,
        present: jax.Array,
        prior: jax.Array,
        kernel: jax.Array | None = None,
        redundant: jax.Array | None = None,
    ) -> jax.Array:
        """Weights ``[n, c]``.

        Args:
          parts: of n entities.
          present: bool ``[n, c]``.
          prior: ``[c]``, relevance in nats that is known beforehand.
          kernel: from ``init``, trained.
          redundant: ``[n, c]``, from ``redundancy``; None if nothing was estimated.
        """


@dataclasses.dataclass(frozen=True)
class Complementarity:
    """Softmax of prior relevance less redundancy; see ``complementarity_weights``."""

    estimator: Estimator | None = ESTIMATORS["infonce"]
    temperature: float = 1.0

    def init(self, parts: int, width: int) -> None:
        """Learns no kernel."""

    def weights(self, parts, present, prior, kernel=None, redundant=None):
        """See ``Fusion``."""
        relevance = jnp.zeros(present.shape, prior.dtype) + prior
        redundant = jnp.zeros_like(relevance) if redundant is None else redundant
        return complementarity_weights(relevance, redundant, present, self.temperature)


@dataclasses.dataclass(frozen=True)
class Mean:
    """Every present part weighs the same."""

    estimator: Estimator | None = None

    def init(self, parts: int, width: int) -> None:
        """Learns no kernel."""

    def weights(self, parts, present, prior, kernel=None, redundant=None):
        """See ``Fusion``."""
        return masked_softmax(jnp.zeros(present.shape, prior.dtype), present)


@dataclasses.dataclass(frozen=True)
class Sum:
    """Every present part weighs 1, so that weights do not add up to 1."""

    estimator: Estimator | None = None

    def init(self, parts: int, width: int) -> None:
        """Learns no kernel."""

    def weights(self, parts, present, prior, kernel=None, redundant=None):
        """See ``Fusion``."""
        return present.astype(prior.dtype)


@dataclasses.dataclass(frozen=True)
class Gate:
    """Softmax of the prior and of each part times a learned vector of its own."""

    estimator: Estimator | None = None

    def init(self, parts: int, width: int) -> jax.Array:
        """Zeros ``[c, d]``."""
        return jnp.zeros((parts, width))

    def weights(self, parts, present, prior, kernel=None, redundant=None):
        """See ``Fusion``."""
        return masked_softmax(parts.along(kernel) + prior, present)


@dataclasses.dataclass(frozen=True)
class Attention:
    """Softmax of the prior and of each part times one learned query for all parts, over sqrt(d)."""

    estimator: Estimator | None = None

    def init(self, parts: int, width: int) -> jax.Array:
        """Zeros ``[1, d]``."""
        return jnp.zeros((1, width))

    def weights(self, parts, present, prior, kernel=None, redundant=None):
        """See ``Fusion``."""
        kernel = jnp.broadcast_to(kernel, (present.shape[1], kernel.shape[1]))
        return masked_softmax(parts.along(kernel) / kernel.shape[1] ** 0.5 + prior, present)


FUSIONS: dict[str, type] = {
    "complementarity": Complementarity,
    "mean": Mean,
    "sum": Sum,
    "attention": Attention,
    "gate": Gate,
}


class Fused(NamedTuple):
    """One fusion of n entities.

    Attributes:
      vectors: ``[n, d]``.
      weights: ``[n, c]``.
      redundant: ``[n, c]``, in nats; zeros if nothing was estimated.
    """

    vectors: jax.Array
    weights: jax.Array
    redundant: jax.Array


def fuse(
    fusion: Fusion,
    parts: Parts,
    present: jax.Array,
    prior: jax.Array,
    kernel: jax.Array | None = None,
    information: jax.Array | None = None,
) -> Fused:
    """Weighs parts and adds them up.

    Args:
      fusion: how parts are weighed.
      parts: of n entities.
      present: bool ``[n, c]``.
      prior: ``[c]``, relevance in nats that is known beforehand.
      kernel: what the fusion learned, see ``Fusion.init``.
      information: ``[c, c]``, from ``estimate``.
    """
    prior = jnp.asarray(prior)
    redundant = None if information is None else redundancy(information, present)
    # A part that is alone has all the weight, whatever the fusion.
    alone = present.shape[1] == 1
    weights = present.astype(prior.dtype) if alone else fusion.weights(parts, present, prior, kernel, redundant)
    return Fused(parts.weighted(weights), weights, jnp.zeros_like(weights) if redundant is None else redundant)


def estimate(
    fusion: Fusion, parts: Parts, present: jax.Array, parameters: Any = None
) -> tuple[jax.Array | None, jax.Array]:
    """Estimates the mutual information between a panel's parts that a fusion wants.

    No gradient flows into the parts, and none from the information into the estimator: only the fit moves it.

    Args:
      fusion: names the estimator.
      parts: of P entities.
      present: bool ``[P, c]``.
      parameters: the estimator's, see ``Estimator.init``; None for one that learns nothing.

    Returns:
      ``[c, c]`` in nats, or None for a fusion that wants none or a single part; and the loss that fits the
      estimator's parameters, a scalar.
    """
    estimator = fusion.estimator
    if estimator is None or present.shape[1] == 1:
        return None, jnp.zeros(())
    low = jax.lax.stop_gradient(parts.through(jnp.asarray(random_projection(parts.width, MI_WIDTH))))
    seen = low * jax.lax.rsqrt(jnp.mean(low * low, axis=-1, keepdims=True) + 1e-12)
    information = jax.lax.stop_gradient(estimator.information(seen, present, parameters))
    return information, jnp.zeros(()) if estimator.fit is None else estimator.fit(seen, present, parameters)


@functools.lru_cache
def random_projection(width: int, low: int) -> np.ndarray:
    """A fixed random matrix ``[d, r]`` with orthonormal columns; the identity for r >= d.

    Kept, since it is wanted whenever a program is traced, and takes half a second at width 1,024.
    """
    if low >= width:
        projection = np.eye(width, dtype=np.float32)
    else:
        gaussian = np.random.default_rng(0).standard_normal((width, low))
        projection = np.linalg.qr(gaussian)[0].astype(np.float32)
    projection.flags.writeable = False
    return projection
