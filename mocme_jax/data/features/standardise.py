"""Feature rows on one scale, whatever made them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mocme_jax.data.graph.knowledge_graph import Modality

# Rows that are converted to float64 at a time.
_ROWS = 1024


class Scale(NamedTuple):
    """What a modality's rows are centred and divided by: ``centre`` float64 ``[d_m]``, ``deviation`` a number."""

    centre: np.ndarray
    deviation: float


def fit_scale(modality: Modality) -> Scale:
    """Means of the columns and the deviation of the whole matrix, over the entities that have the modality."""
    width = modality.features.shape[1]
    count = int(np.count_nonzero(modality.present))
    if not count:
        return Scale(np.zeros(width), 1.0)
    total = np.zeros(width)
    for _, rows in _blocks(modality):
        total += rows.sum(axis=0)
    centre = total / count
    squares = sum(float(np.sum(np.square(rows - centre))) for _, rows in _blocks(modality))
    deviation = float(np.sqrt(squares / (count * width)))
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
    centre, deviation = modality.scale if scale is None else scale
    features = np.zeros(modality.features.shape, np.float32)
    for places, rows in _blocks(modality):
        rows -= centre
        rows /= deviation
        features[places] = np.clip(rows, -clip, clip, out=rows) / np.sqrt(rows.shape[1])
    return Modality(modality.name, features, modality.present)


def _blocks(modality: Modality) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the entities that have the modality, a block at a time: their numbers, and their rows in float64."""
    for start in range(0, len(modality.present), _ROWS):
        places = start + np.flatnonzero(modality.present[start : start + _ROWS])
        if len(places):
            yield places, modality.features[places].astype(np.float64)
