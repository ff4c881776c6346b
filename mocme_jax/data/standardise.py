"""Feature rows on one scale, whatever made them."""

from __future__ import annotations

import numpy as np

from mocme_jax.data.graph import Modality


def standardise(modality: Modality, *, clip: float = 5.0) -> Modality:
    """Centred columns at one common scale, rows with mean square norm about 1.

    Columns are centred over the entities that have the modality and all divided by the deviation of the whole matrix:
    each by its own would blow up what hardly varies, such as the last components of a reduced encoding or an attribute
    of five entities, and bend the distances that the features are there for. What then lies beyond ``clip`` deviations
    is clipped. The last division, by the square root of the width, makes a projection with unit-variance entries give
    unit-variance coordinates at any width. Columns in units of their own belong into ``prepare --numeric`` first.

    Returns:
      The modality with new ``features``; rows that are not present stay 0.
    """
    rows = modality.features[modality.present].astype(np.float64)
    if not len(rows):
        return modality
    centred = rows - rows.mean(axis=0)
    deviation = np.sqrt(np.mean(centred**2))
    scaled = centred / (deviation if deviation > 0 else 1.0)
    features = np.zeros(modality.features.shape, np.float32)
    features[modality.present] = np.clip(scaled, -clip, clip) / np.sqrt(rows.shape[1])
    return Modality(modality.name, features, modality.present)
