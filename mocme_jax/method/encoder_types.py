"""What entities carry, how it is encoded, and what it is measured against: the encoder's arguments and results."""

from __future__ import annotations

from typing import NamedTuple

import jax


class Carried(NamedTuple):
    """What n entities carry: their rows of the structure table, their features, and which of these they have.

    Attributes:
      structure: ``[n, d]``.
      features: one ``[n, d_m]`` a feature modality.
      present: bool ``[n, M]``; column 0 is the structure.
    """

    structure: jax.Array
    features: tuple[jax.Array, ...]
    present: jax.Array


class Panel(NamedTuple):
    """The panel's parts as the MI estimators see them; r is the estimators' width.

    Attributes:
      views: M of ``[P, K, r]``.
      parts: ``[P, M, r]``.
      structure: ``[P, r]``.
      present: bool ``[P, M]``.
      view_information: M of ``[c, c]``, MI of a modality's views in nats, the panel's mean; with relevance
        ``structure`` the structure is the last of them. Empty where weights are each entity's own.
      information: ``[M, M]``, the same of the modalities; None there.
      fit: a scalar, the loss of the estimators' parameters on the panel.
    """

    views: tuple[jax.Array, ...]
    parts: jax.Array
    structure: jax.Array
    present: jax.Array
    view_information: tuple[jax.Array | None, ...]
    information: jax.Array | None
    fit: jax.Array


class Encoding(NamedTuple):
    """Encoded entities and how they came about.

    Attributes:
      vectors: ``[n, d]``.
      modality_weights: ``[n, M]``.
      view_weights: ``[n, M, K]``, summing to 1 over K where the modality is present.
      present: bool ``[n, M]``.
      redundancy: a scalar in nats, each entity's mean over its present parts, views and modalities together, averaged.
      fit: a scalar, the loss of the estimators' own parameters.
    """

    vectors: jax.Array
    modality_weights: jax.Array
    view_weights: jax.Array
    present: jax.Array
    redundancy: jax.Array
    fit: jax.Array


class Fused(NamedTuple):
    """One fusion: ``vectors [n, d]``, ``weights`` and ``redundant`` ``[n, c]``, and the estimator's ``fit`` loss.

    ``information [c, c]`` is the MI of the parts where it is the graph's, else None.
    """

    vectors: jax.Array
    weights: jax.Array
    redundant: jax.Array
    fit: jax.Array
    information: jax.Array | None = None
