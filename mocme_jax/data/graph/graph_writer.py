"""A graph with its features as a folder that ``load_graph`` reads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mocme_jax.data.features.feature_writer import as_feature_file
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.name_files import NAME_FILES, as_name_file
from mocme_jax.data.whole_folders import Content, write_together
from mocme_jax.errors import UserError

# Where it is, the others are.
LAST_FILE = "test2id.txt"


def write_graph(graph: KnowledgeGraph, folder: Path, others: Mapping[str, Content] | None = None) -> None:
    """Writes the OpenKE layout, and ``<modality>.npz``; ids stay as they are. ``LAST_FILE`` gets its place last.

    Args:
      graph: the graph.
      folder: made where missing.
      others: files that belong to it, by name.

    Raises:
      UserError: a name that a line of text can't hold, triples that stay on the disk, a folder that can't be written
        or is being written by another process.
    """
    if graph.mapped:
        raise UserError(f"{graph.name}: its triples are already files; copy its folder")
    tables = zip(NAME_FILES, (graph.entities, graph.relations), strict=True)
    files: dict[str, Content] = {file: as_name_file(file, names) for file, names in tables}
    files |= others or {}
    for modality in graph.modalities:
        files[f"{modality.name}.npz"] = as_feature_file(".npz", modality, graph.entities)
    for split, triples in graph.splits.items():
        rows = np.asarray(triples)[:, [0, 2, 1]].tolist()
        lines = [str(len(rows)), *(" ".join(map(str, row)) for row in rows)]
        files[f"{split}2id.txt"] = ("\n".join(lines) + "\n").encode()
    write_together(folder, files)
