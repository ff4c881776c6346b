"""Who carries much the same: cosines of feature rows, and the nearest by them."""

from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 10
SHARPNESS = 4
"""The power of a similarity that is a neighbour's weight."""


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows at length 1; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def joined_units(features: Sequence[np.ndarray]) -> np.ndarray:
    """Features by modality, ``[N, d_m]`` each, at length 1 and joined: products are sums of the cosines."""
    return np.concatenate([unit_rows(rows) for rows in features], axis=1)


def cosines(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Of new rows ``[n, d]`` with old ones ``[N, d]``: ``[n, N]``, 0 with a row of zeros."""
    return unit_rows(new) @ unit_rows(old).T


def nearest(similar: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The most similar old rows of each new one, best first, by similarities ``[n, N]``.

    Returns:
      Ids ``[n, count]`` and their similarities, 0 where they are below.
    """
    ids = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    return ids, np.maximum(np.take_along_axis(similar, ids, axis=1), 0)
