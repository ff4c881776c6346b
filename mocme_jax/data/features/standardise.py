"""Feature rows on one scale, whatever made them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mocme_jax.data.graph.knowledge_graph import Modality

# Rows that are converted to float64 at a time.
_ROWS = 1024


CLIP = 5.0
"""Cells are clipped to this many root mean squares of the centred cells."""


class Scale(NamedTuple):
    """How the features of a modality are scaled.

    Attributes:
      centre: float64 ``[d_m]``, which is subtracted from each row.
      deviation: the number that rows are then divided by.
      limit: the largest absolute value that is kept after the division.
    """

    centre: np.ndarray
    deviation: float
    limit: float

    @property
    def sparse(self) -> bool:
        """Whether the features are mostly 0, so that cells that are 0 do not count for the limit."""
        return self.limit != CLIP


def fit_scale(modality: Modality) -> Scale:
    """Compute the means of the columns and the deviation of the whole matrix, over the entities that have the modality.

    If most cells are 0, as with attributes that few entities have, the zeros make the deviation small. The limit is
    then ``CLIP`` root mean squares of the other cells.
    """
    width = modality.features.shape[1]
    count = int(np.count_nonzero(modality.present))
    if not count:
        return Scale(np.zeros(width), 1.0, CLIP)
    total = np.zeros(width)
    for _, rows in _blocks(modality):
        total += rows.sum(axis=0)
    centre = total / count
    squares, squares_of_others, others = 0.0, 0.0, 0
    for _, rows in _blocks(modality):
        nonzero = rows != 0
        rows -= centre
        np.square(rows, out=rows)
        squares += float(np.sum(rows))
        squares_of_others += float(np.sum(rows, where=nonzero))
        others += int(np.count_nonzero(nonzero))
    deviation = float(np.sqrt(squares / (count * width)))
    if not deviation > 0:
        return Scale(centre, 1.0, CLIP)
    if 2 * others >= count * width:
        return Scale(centre, deviation, CLIP)
    return Scale(centre, deviation, CLIP * float(np.sqrt(squares_of_others / others)) / deviation)


def standardise(modality: Modality, scale: Scale | None = None) -> Modality:
    """Centre the columns and bring all to one common scale, so that rows have a mean square norm of about 1.

    Columns are centred over the entities that have the modality, divided by the deviation of the whole matrix (each by
    its own would blow up columns that hardly vary), clipped, and divided by the square root of the width, so that a
    projection with unit-variance entries gives unit-variance coordinates. Columns in units of their own belong into
    ``prepare --numeric`` first.

    Args:
      modality: the rows.
      scale: of another graph, for rows that join it; None for the modality's own.

    Returns:
      The modality with new ``features``; rows that are not present stay 0.
    """
    centre, deviation, limit = modality.scale if scale is None else scale
    features = np.zeros(modality.features.shape, np.float32)
    for places, rows in _blocks(modality):
        rows -= centre
        rows /= deviation
        features[places] = np.clip(rows, -limit, limit, out=rows) / np.sqrt(rows.shape[1])
    return Modality(modality.name, features, modality.present)


def _blocks(modality: Modality) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the entities that have the modality, a block at a time: their numbers, and their rows in float64."""
    for start in range(0, len(modality.present), _ROWS):
        places = start + np.flatnonzero(modality.present[start : start + _ROWS])
        if len(places):
            yield places, modality.features[places].astype(np.float64)
