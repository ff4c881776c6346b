"""The structure of entities that no training triple shows, inferred from those that carry much the same.

Where a model never had to do without an entity's structure in training, its features alone say little: they have been
learned as a correction of the structure. A guess at the structure then serves better than none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 10
SHARPNESS = 4
"""The power of a cosine that is a neighbour's weight."""

LENGTH = 2.0
"""Of an inferred row, in mean lengths of its neighbours' rows.

The mean of unlike rows is short, and a short row answers nothing; twice as long, since unlike every other answer
it is among those already known of no question.
"""

_ROWS = 256


def cosines(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Of new rows ``[n, d]`` with old ones ``[N, d]``: ``[n, N]``, 0 with a row of zeros."""
    return _unit(new) @ _unit(old).T


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest(similar: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The most similar old rows of each new one, best first, by similarities ``[n, N]``.

    Returns:
      Ids ``[n, count]`` and their similarities, 0 where they are below.
    """
    ids = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    return ids, np.maximum(np.take_along_axis(similar, ids, axis=1), 0)


def infer_structure(
    structure: np.ndarray, old: Sequence[np.ndarray], new: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Structure rows for new entities: the mean of their neighbours', made ``LENGTH`` times as long as these are.

    Neighbours are the ``NEIGHBOURS`` with the highest sum of cosines over the modalities, weighed by its
    ``SHARPNESS``-th power.

    Args:
      structure: float ``[N, d]``, of the old entities.
      old, new: features by modality, one or more, ``[N, d_m]`` and ``[n, d_m]`` on one scale; rows of zeros are
        missing.

    Returns:
      float32 ``[n, d]``, and bool ``[n]``: which could be inferred. The others, which are like nothing, are zeros.
    """
    count = len(new[0])
    rows = np.zeros((count, structure.shape[1]), np.float32)
    lengths = np.linalg.norm(structure, axis=1)
    # The sum of the cosines is the product of what is joined here.
    old_units, new_units = (np.concatenate([_unit(one) for one in rows_of], axis=1) for rows_of in (old, new))
    for start in range(0, count, _ROWS):
        part = slice(start, start + _ROWS)
        ids, weights = nearest(new_units[part] @ old_units.T, NEIGHBOURS)
        weights = weights**SHARPNESS
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        mean = np.einsum("nk,nkd->nd", weights, structure[ids])
        wanted = LENGTH * np.sum(weights * lengths[ids], axis=1)
        rows[part] = mean * (wanted / np.maximum(np.linalg.norm(mean, axis=1), 1e-12))[:, None]
    return rows, np.any(rows, axis=1)
