"""Feature rows on one scale, whatever made them."""

from typing import NamedTuple

import numpy as np

from mocme_jax.data.graph.knowledge_graph import Modality


class Scale(NamedTuple):
    """What a modality's rows are centred and divided by: ``centre`` float64 ``[d_m]``, ``deviation`` a number."""

    centre: np.ndarray
    deviation: float


def fit_scale(modality: Modality) -> Scale:
    """Means of the columns and the deviation of the whole matrix, over the entities that have the modality."""
    rows = modality.features[modality.present].astype(np.float64)
    if not len(rows):
        return Scale(np.zeros(modality.features.shape[1]), 1.0)
    centre = rows.mean(axis=0)
    deviation = float(np.sqrt(np.mean((rows - centre) ** 2)))
    return Scale(centre, deviation if deviation > 0 else 1.0)


def standardise(modality: Modality, scale: Scale | None = None, *, clip: float = 5.0) -> Modality:
    """Centred columns at one common scale, rows with mean square norm about 1.

    Columns are centred over the entities that have the modality, divided by the deviation of the whole matrix (each by
    its own would blow up columns that hardly vary), clipped, and divided by the square root of the width, so that a
    projection with unit-variance entries gives unit-variance coordinates. Columns in units of their own belong into
    ``prepare --numeric`` first.

    Args:
      modality: the rows.
      scale: of another graph, for rows that join it; None for the modality's own.
      clip: in deviations.

    Returns:
      The modality with new ``features``; rows that are not present stay 0.
    """
    rows = modality.features[modality.present].astype(np.float64)
    if not len(rows):
        return modality
    centre, deviation = fit_scale(modality) if scale is None else scale
    scaled = (rows - centre) / deviation
    features = np.zeros(modality.features.shape, np.float32)
    features[modality.present] = np.clip(scaled, -clip, clip) / np.sqrt(rows.shape[1])
    return Modality(modality.name, features, modality.present)
