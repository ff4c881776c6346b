"""Writes modalities as feature files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mocme_jax.data.features.attribute_values import to_arrays
from mocme_jax.data.graph.entity_names import numbers_are_names
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.data.whole_files import write_atomically


def write_features(path: Path, modality: Modality, entities: Sequence[str]) -> None:
    """Writes one modality, see ``as_feature_file``; an OSError if that is not possible."""
    write_atomically(path, as_feature_file(path.suffix, modality, entities))


def as_feature_file(suffix: str, modality: Modality, entities: Sequence[str]) -> Callable[[BinaryIO], None]:
    """What writes one modality: as ``.npy`` a matrix ``[N, d]``, NaN where missing; as ``.npz`` ids and rows.

    An ``.npz`` tells how they were made as well, a matrix does not. In place of ids stand names where a whole number
    would be read as one, see ``numbers_are_names``.
    """
    if suffix == ".npy":
        rows = np.where(modality.present[:, None], modality.features, np.float32(np.nan))
        return lambda file: np.save(file, rows)
    places = np.flatnonzero(modality.present).astype(np.int32)
    ids = np.array([entities[place] for place in places]) if numbers_are_names(entities) else places
    arrays = {"ids": ids, "rows": modality.features[places], "made_by": np.array(modality.made_by)}
    arrays |= to_arrays(modality.attributes) if modality.attributes else {}
    return lambda file: np.savez_compressed(file, **arrays)
