"""Writes modalities as feature files."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mocme_jax.data.features.attribute_values import to_arrays
from mocme_jax.data.graph.entity_names import numbers_are_names
from mocme_jax.data.graph.knowledge_graph import Modality


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


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes to a temporary file beside the place and renames it, so that no reader meets half a file.

    Raises:
      OSError: the folder cannot be made or written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        # mkstemp makes private files; a feature file is an ordinary one.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
