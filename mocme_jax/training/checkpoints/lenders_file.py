"""Who lends structure to whom, kept in the run's folder: finding them is most of what loading a model takes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mocme_jax.additions.lending import Lenders
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.training import setup
from mocme_jax.training.checkpoints.run_folder import write_whole

if TYPE_CHECKING:
    from ml_collections import ConfigDict

LENDERS_FILE = "lenders.npz"


def write_lenders(workdir: Path, lenders: Lenders) -> None:
    """Keeps the lenders of a run.

    Raises:
      UserError: the file can't be written.
    """
    content = io.BytesIO()
    np.savez(content, **lenders._asdict())
    write_whole(Path(workdir) / LENDERS_FILE, content.getvalue())


def lenders_of_run(workdir: Path, config: ConfigDict, graph: KnowledgeGraph) -> Lenders | None:
    """The lenders that a run was evaluated with, found anew where no usable file is left; None: nothing is lent."""
    if not setup.lent_share(config):
        return None
    kept = _read(Path(workdir) / LENDERS_FILE, len(graph.entities))
    return setup.lenders_of(config, graph) if kept is None else kept


def _read(path: Path, entities: int) -> Lenders | None:
    try:
        with np.load(path) as file:
            kept = Lenders(*(file[name] for name in Lenders._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    ids, weights, triples = kept
    of_this_graph = ids.shape == weights.shape and len(ids) == len(triples) == entities
    return kept if of_this_graph and ids.min() >= 0 and ids.max() < entities else None
