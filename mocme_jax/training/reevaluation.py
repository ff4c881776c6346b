"""Repeats the scores of a run from its best checkpoint."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console

from mocme_jax.evaluation.added_information import added_information, by_relation
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.parallel.mesh import Program
from mocme_jax.training.best_model import Restored, restore_best
from mocme_jax.training.compilation_cache import use_compilation_cache
from mocme_jax.training.device_data import without
from mocme_jax.training.logs.progress import make_console, results_table
from mocme_jax.training.logs.run_results import print_results, read_results, results_of, weight_names
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of

SHOWN_RELATIONS = 20
"""Relations in the printed table, the most frequent first."""


def evaluate_workdir(
    workdir: Path,
    *,
    data_dir: str | None = None,
    features_dir: str | None = None,
    as_json: bool = False,
    information: bool = False,
) -> bool:
    """Prints the scores of a run's best checkpoint, and whether they are those of its ``results.json``.

    Args:
      workdir, data_dir, features_dir: see ``restore_best``, for errors too.
      as_json: print a report in JSON, on standard output alone.
      information: tell too what each modality adds, see ``added_information``; the report has it as ``information``.

    Returns:
      False if ``results.json`` is there and its scores are others.
    """
    use_compilation_cache()
    console = make_console(sys.stderr if as_json else None)
    restored = restore_best(workdir, data_dir=data_dir, features_dir=features_dir, notify=console.print)
    config, dataset, mapper, model = restored.config, restored.dataset, restored.mapper, restored.model
    evaluator = builders.build_evaluator(config, model, dataset, mapper)
    inputs = builders.build_inputs(config, dataset.graph, mapper)
    additions = builders.table_additions_of(config, dataset.graph, workdir)
    encode = builders.build_encode(config, model, dataset.graph, mapper, additions)
    vectors, weights = encode(restored.params, inputs)
    results = results_of(
        restored.saved["config"],
        dataset,
        restored.saved["position"],
        dev=evaluator.report(restored.params.model, vectors, "valid"),
        test=evaluator.report(restored.params.model, vectors, "test") if len(dataset.graph.test) else None,
        weights=weight_names(dataset.graph, weights),
    )
    if information:
        results["information"] = _information(restored, evaluator, encode, inputs, vectors)
    if as_json:
        print(json.dumps(results, indent=1))
    else:
        print_results(results, console)
    if information and not as_json:
        _print_information(results["information"], console)
    before = read_results(workdir)
    if before is None:
        console.print(f"{workdir} holds no results.json to compare with: the run has not finished")
        return True
    same = all(before[split] == results[split] for split in ("dev", "test"))
    console.print(
        f"the same numbers as {workdir / 'results.json'}"
        if same
        else f"NOT the numbers of {workdir / 'results.json'}; that file was written on {before['device']}, "
        f"jax {before['jax']}, and this is {results['device']}, jax {results['jax']}"
    )
    return same


def _information(
    restored: Restored, evaluator: Evaluator, encode: Program, inputs: Inputs, vectors: EntityVectors
) -> dict[str, dict]:
    """What each modality adds about dev answers: ``Added`` by modality for ``all``, and by relation in ``relations``.

    Empty for a model of structure alone, which has nothing to compare.
    """
    graph, mapper, params = restored.dataset.graph, restored.mapper, restored.params
    names = ["structure", *(modality.name for modality in graph.modalities)]
    if len(names) == 1:
        return {}

    whole = evaluator.log_probabilities(params.model, vectors, "valid")
    split = settings_of(restored.config).shard_entities
    everything, relations = {}, defaultdict[str, dict](dict)
    for number, name in enumerate(names):
        masked, _ = encode(params, without(inputs, graph, number, mapper, split=split))
        less = evaluator.log_probabilities(params.model, masked, "valid")
        everything[name] = added_information(whole, less)._asdict()
        for relation, added in by_relation(whole, less, graph.valid[:, 1]).items():
            relations[graph.relations[relation]][name] = added._asdict()
    return {"all": everything, "relations": relations}


def _print_information(information: dict[str, dict], console: Console) -> None:
    """A table of what each modality adds in all, and for the most frequent relations."""
    if not information:
        console.print("structure is the only modality of this model: there is nothing for it to add to")
        return
    shown = [("all", information["all"]), *list(information["relations"].items())[:SHOWN_RELATIONS]]
    rows = []
    for relation, added in shown:
        told = {name: _in_nats(one) for name, one in added.items()}
        rows.append({"relation": relation, "triples": added["structure"]["triples"]} | told)
    title = "information about dev answers that each modality adds to the others: nats ± 95% confidence interval"
    results_table(rows, title=title, console=console)
    left = len(information["relations"]) - SHOWN_RELATIONS
    if left > 0:
        console.print(f"{left} less frequent relations are not shown; --json lists all")


def _in_nats(added: dict) -> str:
    margin = "" if added["margin"] is None else f" ± {added['margin']:.2f}"
    # Adding 0 after rounding makes -0.00 a plain 0.00.
    return f"{round(added['nats'], 2) + 0.0:.2f}{margin}"
