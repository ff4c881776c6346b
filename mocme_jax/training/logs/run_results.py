"""The results of a finished run: ``results.json`` and a table of metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from rich.console import Console

from mocme_jax import __version__
from mocme_jax.data.audit.graph_audit import JOINED_WORTH_A_WARNING
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError, one_line
from mocme_jax.training.logs.progress import results_table

if TYPE_CHECKING:
    from mocme_jax.training.setup.builders import Dataset


_SCORE = (float, None)
METRICS = {"count": int, "mrr": _SCORE, "mr": _SCORE, "hits@1": _SCORE, "hits@3": _SCORE, "hits@10": _SCORE}
"""The shape of ``ranking_metrics``; see ``json_shape``."""

_REPORT = {"overall": METRICS, "clean": METRICS, "groups": {str: {str: METRICS}}}
GRAPH = {
    "name": str,
    "entities": int,
    "relations": int,
    "triples": {str: int},
    "modalities": {str: float},
    "made_by?": {str: str},
    "dev": str,
}
"""The shape of ``graph_of``."""

RESULTS = {
    "graph": GRAPH,
    "warnings": [str],
    "run": {"step": int, "epoch": int, "best_epoch": int, "best_step": int, "best_mrr": float, "minutes": float},
    "dev": _REPORT,
    "test": (_REPORT, None),
    "weights": {str: float},
    **dict.fromkeys(("jax", "device", "version", "fingerprint"), str),
    "config": {str: object},
}
"""The shape of ``results_of``."""


def results_of(config: dict, dataset: Dataset, position: dict, *, dev: dict, test: dict | None, weights: dict) -> dict:
    """Return the content of ``results.json``.

    Args:
      config: the config as a dict.
      dataset: the graph.
      position: the position of the run as a dict.
      dev: a report of the evaluator.
      test: a report of the evaluator; None if the graph has no test split.
      weights: each expert's mean share of the weights.
    """
    return {
        "graph": graph_of(dataset),
        "warnings": dataset.warnings,
        "run": position,
        "dev": dev,
        "test": test,
        "weights": weights,
        "jax": jax.__version__,
        "device": jax.local_devices()[0].device_kind,
        "version": __version__,
        "fingerprint": dataset.fingerprint,
        "config": config,
    }


def graph_of(dataset: Dataset) -> dict:
    """Return a description of the graph, ready for JSON."""
    graph = dataset.graph
    return {
        "name": graph.name,
        "entities": len(graph.entities),
        "relations": len(graph.relations),
        "triples": {name: len(rows) for name, rows in graph.splits.items()},
        "modalities": {modality.name: modality.coverage for modality in graph.modalities},
        "made_by": {modality.name: modality.made_by for modality in graph.modalities if modality.made_by},
        "dev": dataset.dev,
    }


def weight_names(graph: KnowledgeGraph, shares: np.ndarray) -> dict[str, float]:
    """Return each expert's mean share of the weights ``[H]`` by its name, for JSON."""
    names = expert_names([modality.name for modality in graph.modalities], len(shares))
    return dict(zip(names, np.asarray(shares, np.float64).tolist(), strict=True))


def expert_names(modalities: Sequence[str], experts: int) -> list[str]:
    """Return the names of H experts: the structure, feature modalities if there are several, and joint experts.

    If a graph has features and the model has a single expert, the model fuses vectors.
    """
    if experts == 1:
        return ["fused vector" if modalities else "structure"]
    own = list(modalities) if len(modalities) > 1 else []
    joint = experts - 1 - len(own)
    word = "joint expert"
    return ["structure", *own, *([word] if joint == 1 else [f"{word} {k + 1}" for k in range(joint)])]


def read_results(workdir: Path) -> dict | None:
    """Read ``results.json`` of a finished run; None if there is none.

    Raises:
      UserError: the file has other content.
    """
    path = workdir / "results.json"
    if not os.path.lexists(path):
        return None
    results = read_json(path)
    wrong = misfit(results, RESULTS) or (None if results["weights"] else "weights is empty")
    if wrong:
        raise UserError(
            f"{path}: does not contain the results of a run: {wrong}; delete it, and train again to write it"
        )
    return results | {name: one_line(results[name]) for name in ("device", "jax")}


def scores_of(results: dict) -> dict[str, dict]:
    """Return the metrics of dev, of test, and of test's clean rows if there are fewer, by name.

    Clean rows are the test triples that train does not hold.
    """
    found, test = {"dev": results["dev"]["overall"]}, results["test"]
    if test is not None:
        found["test"] = test["overall"]
        if test["clean"]["count"] < test["overall"]["count"]:
            found["test, clean rows"] = test["clean"]
    return found


def joined_scores_of(results: dict) -> dict[str, dict]:
    """Return the metrics of test's triples whose two entities train joins or does not join, by name.

    There are none if train joins at most 5% of them, or nearly all, or if the run is of an earlier version.
    """
    groups = {} if results["test"] is None else results["test"]["groups"].get("two_entities", {})
    joined, apart = (groups.get(name, {"count": 0}) for name in ("joined", "not joined"))
    if min(joined["count"], apart["count"]) <= JOINED_WORTH_A_WARNING * (joined["count"] + apart["count"]):
        return {}
    return {"test, entities joined in train": joined, "test, entities not joined": apart}


def print_results(results: dict, console: Console) -> None:
    """Print a table of the metrics: of ``scores_of``, of each direction, and of test's ``joined_scores_of``."""
    directions = {} if results["test"] is None else results["test"]["groups"].get("direction", {})
    scores = scores_of(results) | {f"test, {name}s": directions[name] for name in sorted(directions, reverse=True)}
    rows = [
        {"split": name, "queries": one["count"], "MRR": one["mrr"], "MR": one["mr"]}
        | {f"Hits@{k}": one[f"hits@{k}"] for k in (1, 3, 10)}
        for name, one in (scores | joined_scores_of(results)).items()
    ]
    best = results["run"]["best_epoch"]
    results_table(rows, title=f"{results['graph']['name']}, best epoch on dev: {best}", console=console)
