"""Functions that load the graph of a config and its dev split."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mocme_jax.data.audit.graph_audit import CLEAN_ENOUGH, audit
from mocme_jax.data.features.modality_names import modality_name
from mocme_jax.data.graph.graph_folder import atlas_directory, load_graph
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.splits import carve_dev, clean_rows
from mocme_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A graph ready for training.

    Attributes:
      graph: the graph. ``train`` is the split to train on, ``valid`` the dev split: the released one, or taken from
        train.
      known: all splits as released, for filtering.
      fingerprint: the digest of the graph as read, before a dev split was taken from train.
      parts: the digest of each part of that graph.
      warnings: the warnings of the audit, one line each.
      dev: a description of the dev split.
    """

    graph: KnowledgeGraph
    known: tuple[np.ndarray, ...]
    fingerprint: str
    parts: dict[str, str]
    warnings: list[str]
    dev: str


def load_dataset(
    config: ConfigDict, notify: Callable[[str], None] | None = None, graph: KnowledgeGraph | None = None
) -> Dataset:
    """Read and audit the graph that ``config.data`` names, and determine its dev split.

    Args:
      config: the config.
      notify: called with one line before slow work; None for silence.
      graph: a graph to use instead, with the modalities that ``config.data`` names.

    Raises:
      UserError: the data are missing or malformed, or no dev split is possible.
    """
    data, graph = config.data, _read(config, notify) if graph is None else _chosen(config, graph)
    known, (fingerprint, parts) = tuple(graph.splits.values()), graph.fingerprints()
    if graph.mapped:
        usable = _usable_mapped(config, graph)
        return Dataset(usable, known, fingerprint, parts, [], "valid split on disk; audited when it was written")
    report = audit(graph)
    warnings = report.warnings()
    if data.dev == "valid" and report.valid_is_clean:
        return Dataset(_with_clean_valid(graph), known, fingerprint, parts, warnings, "released valid split")
    if data.dev == "valid":
        warnings.append(
            "the released valid split cannot be used to choose a model: dev is carved out of train instead "
            "(data.dev=train)"
        )
    train, dev = carve_dev(graph.train, data.dev_fraction, config.seed, avoid=graph.test)
    share = f"{data.dev_fraction:.0%} of train, seed {config.seed}"
    return Dataset(graph.replace(train=train, valid=dev), known, fingerprint, parts, warnings, share)


def _usable_mapped(config: ConfigDict, graph: KnowledgeGraph) -> KnowledgeGraph:
    """Return a memory-mapped graph for training; ``prepare`` has checked what an audit would load into memory."""
    usable = _with_clean_valid(graph)
    if config.data.dev != "valid" or len(usable.valid) < CLEAN_ENOUGH * len(graph.valid) or not len(graph.valid):
        raise UserError(
            f"{graph.name}: mapped triples need a valid split that shares no triple with the others "
            f"({len(usable.valid):,} of {len(graph.valid):,} do), and data.dev=valid; "
            "mocme_jax.prepare --triples --dev-fraction=0.01 makes one"
        )
    return usable


def _with_clean_valid(graph: KnowledgeGraph) -> KnowledgeGraph:
    """Remove the valid rows that train or test holds too; they would select the model on training or test triples."""
    return graph.replace(valid=np.asarray(graph.valid[clean_rows(graph.valid, graph.train, graph.test)]))


def _read(config: ConfigDict, notify: Callable[[str], None] | None) -> KnowledgeGraph:
    data = config.data
    if data.dir is None and data.name != "atlas":
        raise UserError(f"config {data.name}: give the folder of the graph with --config.data.dir=FOLDER")
    return load_graph(
        atlas_directory() if data.dir is None else Path(data.dir),
        Path(data.features_dir) if data.features_dir else None,
        # A user's graph with the default config is named after its folder.
        name="" if data.dir is not None and data.name == "atlas" else data.name,
        modalities=() if "all" in data.modalities else (tuple(data.modalities) or ("structure",)),
        make=tuple(data.make),
        notify=notify,
    )


def _chosen(config: ConfigDict, graph: KnowledgeGraph) -> KnowledgeGraph:
    wanted = {modality_name(word) for word in config.data.modalities} - {"structure"}
    there = {one.name: one for one in graph.modalities}
    if "all" in config.data.modalities:
        return graph
    if missing := sorted(wanted - there.keys()):
        raise UserError(f"{graph.name}: has no features for {missing[0]}; available: {', '.join(there) or 'none'}")
    return graph.replace(modalities=tuple(there[name] for name in there if name in wanted))
