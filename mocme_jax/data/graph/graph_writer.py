"""A graph with its features as a folder that ``load_graph`` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mocme_jax.data.features.feature_writer import write_features
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.name_files import NAME_FILES, write_names
from mocme_jax.data.whole_files import write_atomically
from mocme_jax.errors import UserError

# Where it is, the others are.
LAST_FILE = "test2id.txt"


def write_graph(graph: KnowledgeGraph, folder: Path) -> None:
    """Writes the OpenKE layout, and ``<modality>.npz``; ids stay as they are. ``LAST_FILE`` is written last.

    Raises:
      UserError: a name that a line of text can't hold, triples that stay on the disk, a folder that can't be written.
    """
    folder = Path(folder)
    if graph.mapped:
        raise UserError(f"{graph.name}: its triples are files already; copy its folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, names in zip(NAME_FILES, (graph.entities, graph.relations), strict=True):
            write_names(folder / file, names)
        for modality in graph.modalities:
            write_features(folder / f"{modality.name}.npz", modality, graph.entities)
        for split, triples in graph.splits.items():
            rows = np.asarray(triples)[:, [0, 2, 1]].tolist()
            lines = [str(len(rows)), *(" ".join(map(str, row)) for row in rows)]
            content = ("\n".join(lines) + "\n").encode()
            write_atomically(folder / f"{split}2id.txt", lambda file, content=content: file.write(content))
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror})") from error
