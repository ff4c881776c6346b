"""Writes modalities as feature files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.features.attribute_values import to_arrays
from mocme_jax.data.graph.entity_names import numbers_are_names
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.data.whole_files import write_atomically


def write_features(path: Path, modality: Modality, entities: Sequence[str]) -> None:
    """Writes one modality: as ``.npy`` a matrix ``[N, d]``, NaN where missing; as ``.npz`` ids and rows.

    An ``.npz`` tells how they were made as well, a matrix does not. In place of ids stand names where a whole number
    would be read as one, see ``numbers_are_names``.
    """
    if path.suffix == ".npy":
        rows = np.where(modality.present[:, None], modality.features, np.float32(np.nan))
        write_atomically(path, lambda file: np.save(file, rows))
    else:
        places = np.flatnonzero(modality.present).astype(np.int32)
        ids = np.array([entities[place] for place in places]) if numbers_are_names(entities) else places
        arrays = {"ids": ids, "rows": modality.features[places], "made_by": np.array(modality.made_by)}
        arrays |= to_arrays(modality.attributes) if modality.attributes else {}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
