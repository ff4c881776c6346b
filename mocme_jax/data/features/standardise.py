"""Feature rows on one scale, whatever made them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mocme_jax.data.graph.knowledge_graph import Modality

# Rows in float64 at a time: 15,000 rows of 4,096 as a whole would take half a gigabyte, several times over.
_BLOCK = 1024


class Scale(NamedTuple):
    """What a modality's rows are centred and divided by: ``centre`` float64 ``[d_m]``, ``deviation`` a number."""

    centre: np.ndarray
    deviation: float


def fit_scale(modality: Modality) -> Scale:
    """Means of the columns and the deviation of the whole matrix, over the entities that have the modality."""
    rows, width = np.flatnonzero(modality.present), modality.features.shape[1]
    if not len(rows):
        return Scale(np.zeros(width), 1.0)
    centre = sum(block.sum(axis=0) for _, block in _blocks(modality)) / len(rows)
    squares = sum(float(np.sum((block - centre) ** 2)) for _, block in _blocks(modality))
    deviation = float(np.sqrt(squares / (len(rows) * width)))
    return Scale(centre, deviation if deviation > 0 else 1.0)


def _blocks(modality: Modality) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows that are present as float64, a few at a time, and which they are."""
    there = np.flatnonzero(modality.present)
    for first in range(0, len(there), _BLOCK):
        rows = there[first : first + _BLOCK]
        yield rows, modality.features[rows].astype(np.float64)


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
    if not modality.present.any():
        return modality
    centre, deviation = fit_scale(modality) if scale is None else scale
    features = np.zeros(modality.features.shape, np.float32)
    for rows, block in _blocks(modality):
        features[rows] = np.clip((block - centre) / deviation, -clip, clip) / np.sqrt(block.shape[1])
    return Modality(modality.name, features, modality.present)
