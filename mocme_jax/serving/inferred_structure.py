"""The structure of entities without training triples, inferred from entities with similar features.

The structure expert knows nothing about such entities. Neither does an expert of a modality that they lack, because its
vector is then a row of the structure table too. An inferred row works better than none.
"""

from collections.abc import Sequence

import numpy as np

from mocme_jax.data.features.similarity import NEIGHBOURS, SHARPNESS, joined_units, nearest

_ROWS = 256


def infer_structure(
    structure: np.ndarray, old: Sequence[np.ndarray], new: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Infer structure rows for new entities: the mean of their neighbours' rows, scaled to the neighbours' mean length.

    The mean of different rows is short, and a short row has low scores for all answers. Neighbours are the
    ``NEIGHBOURS`` entities with the highest sum of cosines over the modalities, weighted by its ``SHARPNESS``-th power.

    Args:
      structure: float ``[N, H d]``, rows of the existing entities.
      old: features of the existing entities by modality (at least one), ``[N, d_m]``. Rows of zeros are missing.
      new: features of the new entities by modality on the same scale, ``[n, d_m]``. Rows of zeros are missing.

    Returns:
      float32 ``[n, H d]``, and bool ``[n]``, whether the row could be inferred. Other rows are zeros.
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
