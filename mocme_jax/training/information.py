"""What complementarity brings a trained model, measured on dev: nats of each part, and the gain of fitted weights."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError
from mocme_jax.evaluation.added_information import added_information, by_relation
from mocme_jax.evaluation.metrics import mean_and_margin
from mocme_jax.method.mocme import MoCME, Params
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.checkpoints.run_folder import write_json
from mocme_jax.training.device_data import without
from mocme_jax.training.entity_encoding import Unencoded
from mocme_jax.training.logs.progress import results_table
from mocme_jax.training.logs.run_results import expert_names
from mocme_jax.training.model_scorer import DEV, ModelScorer
from mocme_jax.training.weight_fit import Fitted, before_fit, unfitted

FILE = "information.json"
_ADDED = {"nats": float, "margin": (float, None), "triples": int}
INFORMATION = {
    "best_step": int,
    "modalities": {str: _ADDED},
    "experts": {str: _ADDED},
    "relations": {str: {str: _ADDED}},
    "weights": ({"fitted": float, "before": float, "gain": float, "margin": (float, None)}, None),
}
"""The shape of the file; see ``json_shape``."""

SHOWN_RELATIONS = 20
"""The number of relations in the printed table, the most frequent first."""


def measure_information(
    model: MoCME,
    fitted: Fitted,
    graph: KnowledgeGraph,
    scorer: ModelScorer,
    mapper: Mapper,
    dev_ranks: np.ndarray,
    *,
    split: bool,
) -> dict[str, Any]:
    """Measure the information that each part adds, and the gain of the fitted weights.

    A modality is left out as if no entity had it, an expert as if its weight were 0.

    Args:
      model: the model.
      fitted: its parameters.
      graph: the graph, whose ``valid`` is dev.
      scorer: see ``builders.build_scorer``.
      mapper: the devices.
      dev_ranks: ``[2T]``, the ranks of dev with ``fitted``; see ``ModelScorer.dev_ranks``.
      split: whether tables are sharded.

    Returns:
      ``Added`` as dicts: ``modalities`` and ``experts`` by name, and ``relations``, modalities by relation. ``weights``
      is what ``gain_of_weights`` returns. Empty for a model of the structure alone, which has nothing to compare, and
      if dev is empty.
    """
    features = [modality.name for modality in graph.modalities]
    if not features or not len(graph.valid):
        return {}

    whole_tables: dict[int | None, Any] = {}

    def log_probabilities(masked: Inputs | None = None, expert: int = -1) -> np.ndarray:
        """Compute them for masked inputs, or for all inputs with weight 0 for an expert (-1: for none)."""

        def of(params: Params, fold: int | None) -> np.ndarray:
            if masked is None and fold not in whole_tables:
                whole_tables[fold] = scorer.encode(params, scorer.inputs)[0]
            tables = whole_tables[fold] if masked is None else scorer.encode(params, masked)[0]
            if isinstance(tables, Unencoded):
                tables = tables._replace(hidden=mapper.place(np.int32(expert), WHOLE))
            else:
                tables = tables._replace(questions=model.without(tables.questions, expert))
            return scorer.evaluator.log_probabilities(params.model, tables, DEV, fold)

        return scorer.on_dev(fitted, of)

    whole = log_probabilities()
    modalities, experts, relations = {}, {}, defaultdict[str, dict](dict)
    for number, name in enumerate(["structure", *features]):
        less = log_probabilities(without(scorer.inputs, graph, number, mapper, split=split))
        modalities[name] = added_information(whole, less)._asdict()
        for relation, added in by_relation(whole, less, graph.valid[:, 1]).items():
            relations[graph.relations[relation]][name] = added._asdict()
    for number, name in enumerate(expert_names(features, model.encoder.experts)):
        less = log_probabilities(expert=number)
        experts[name] = added_information(whole, less)._asdict()
    weights = gain_of_weights(model, fitted, scorer, mapper, dev_ranks)
    return {"modalities": modalities, "experts": experts, "relations": dict(relations), "weights": weights}


def gain_of_weights(
    model: MoCME, fitted: Fitted, scorer: ModelScorer, mapper: Mapper, dev_ranks: np.ndarray
) -> dict[str, float | None] | None:
    """Compare the dev MRR of the fitted weights with that of the weights before the fit. The experts are the same.

    For the arguments see ``measure_information``.

    Returns:
      The MRR with the ``fitted`` weights, and ``before`` the fit, when the weights of complementarity are equal. The
      ``gain`` is the difference. The ``margin`` is half the width of its 95% confidence interval, None for a single
      triple. The result is None if the fusion is not fitted on dev.
    """
    if not fitted.folds:
        return None
    after, before = 1 / dev_ranks, 1 / scorer.dev_ranks(unfitted(before_fit(model, fitted.params, mapper)))
    gain, margin = mean_and_margin(after - before)
    return {"fitted": float(after.mean()), "before": float(before.mean()), "gain": gain, "margin": margin}


def write_information(workdir: Path, information: dict[str, Any], position: dict) -> bool:
    """Write it into a run's folder, for the best step of a position; return False if it cannot be written."""
    try:
        write_json(workdir / FILE, {"best_step": position["best_step"]} | information)
    except UserError:
        return False
    return True


def read_information(workdir: Path, position: dict) -> dict[str, Any]:
    """Read it from a run's folder; empty if there is none, or if it belongs to another checkpoint."""
    path = workdir / FILE
    found = read_json(path) if os.path.lexists(path) else {}
    fits = misfit(found, INFORMATION) is None
    return found if fits and found["best_step"] == position.get("best_step") else {}


def in_nats(added: dict) -> str:
    """Format as ``1.20 ± .31``; without the margin if there is only one triple."""
    margin = "" if added["margin"] is None else f" ± {added['margin']:.2f}"
    # Adding 0 after rounding makes -0.00 a plain 0.00.
    return f"{round(added['nats'], 2) + 0.0:.2f}{margin}"


def print_information(information: dict[str, Any], console: Console) -> None:
    """Print what each modality adds, also per frequent relation, what each expert adds, and what the fit gains."""
    if not information:
        console.print("structure is the only modality of this model: it has nothing to add to")
        return
    shown = [("all", information["modalities"]), *list(information["relations"].items())[:SHOWN_RELATIONS]]
    rows = []
    for relation, added in shown:
        told = {name: in_nats(one) for name, one in added.items()}
        rows.append({"relation": relation, "triples": added["structure"]["triples"]} | told)
    title = "information about dev answers that each modality adds to the others: nats ± 95% confidence interval"
    results_table(rows, title=title, console=console)
    left = len(information["relations"]) - SHOWN_RELATIONS
    if left > 0:
        console.print(f"{left} less frequent relations are not shown; --json lists all")
    rows = [{"expert": name, "nats": in_nats(added)} for name, added in information["experts"].items()]
    results_table(rows, title="the same for each expert", console=console)
    if information["weights"]:
        console.print(in_words(information["weights"]), soft_wrap=True)


def in_words(weights: dict[str, float | None]) -> str:
    """Say what ``gain_of_weights`` found."""
    margin = "" if weights["margin"] is None else f" ± {weights['margin']:.4f} (95% confidence interval)"
    return (
        f"dev MRR: {weights['fitted']:.4f} with the fitted weights, {weights['before']:.4f} with the weights before "
        f"the fit; gain {weights['gain']:+.4f}{margin}"
    )
