"""The structure of entities that no training triple shows, inferred from those that carry much the same.

The expert for the structure knows nothing of such entities, and neither do those whose features they lack: a row of the
structure table stands for these too. A guess at the rows then serves better than none.
"""

from collections.abc import Sequence

import numpy as np

from mocme_jax.data.features.similarity import NEIGHBOURS, SHARPNESS, joined_units, nearest

_ROWS = 256


def infer_structure(
    structure: np.ndarray, old: Sequence[np.ndarray], new: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Structure rows for new entities: the mean of their neighbours', made as long as these are on average.

    The mean of unlike rows is short, and a short row answers nothing.

    Neighbours are the ``NEIGHBOURS`` with the highest sum of cosines over the modalities, weighed by its
    ``SHARPNESS``-th power.

    Args:
      structure: float ``[N, H d]``, of the old entities.
      old, new: features by modality, one or more, ``[N, d_m]`` and ``[n, d_m]`` on one scale; rows of zeros are
        missing.

    Returns:
      float32 ``[n, H d]``, and bool ``[n]``: which could be inferred. The others, which are like nothing, are zeros.
    """
    count = len(new[0])
    rows = np.zeros((count, structure.shape[1]), np.float32)
    lengths = np.linalg.norm(structure, axis=1)
    old_units, new_units = joined_units(old), joined_units(new)
    for start in range(0, count, _ROWS):
        part = slice(start, start + _ROWS)
        ids, weights = nearest(new_units[part] @ old_units.T, NEIGHBOURS)
        weights = weights**SHARPNESS
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        mean = np.einsum("nk,nkd->nd", weights, structure[ids])
        wanted = np.sum(weights * lengths[ids], axis=1)
        rows[part] = mean * (wanted / np.maximum(np.linalg.norm(mean, axis=1), 1e-12))[:, None]
    return rows, np.any(rows, axis=1)
