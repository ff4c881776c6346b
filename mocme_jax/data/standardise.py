"""Feature rows on one scale, whatever made them."""

from __future__ import annotations

import numpy as np

from mocme_jax.data.graph import Modality


def standardise(modality: Modality, *, clip: float = 5.0) -> Modality:
    """Columns with mean 0 and deviation 1 over the entities that have them, rows with mean square norm about 1.

    A column that hardly ever varies (an attribute of five entities) would blow up if it were divided by its own
    deviation, so that no column is divided by less than a tenth of the deviation of all columns together; what still
    lies beyond ``clip`` deviations is clipped. The last division, by the square root of the width, makes a projection
    with unit-variance entries give unit-variance coordinates at any width.

    Returns:
      The modality with new ``features``; rows that are not present stay 0.
    """
    rows = modality.features[modality.present].astype(np.float64)
    if not len(rows):
        return modality
    deviation = rows.std(axis=0)
    floor = 0.1 * np.sqrt(np.mean(deviation**2))
    scaled = (rows - rows.mean(axis=0)) / np.maximum(deviation, floor if floor > 0 else 1.0)
    features = np.zeros(modality.features.shape, np.float32)
    features[modality.present] = np.clip(scaled, -clip, clip) / np.sqrt(rows.shape[1])
    return Modality(modality.name, features, modality.present)
