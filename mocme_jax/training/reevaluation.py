"""The command evaluate: a repeated evaluation of a run's best checkpoint."""

import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mocme_jax.evaluation.metrics import ranking_metrics
from mocme_jax.training.best_model import restore_best
from mocme_jax.training.information import measure_information, print_information, write_information
from mocme_jax.training.logs.progress import make_console, print_json, results_table
from mocme_jax.training.logs.run_results import print_results, read_results, results_of, weight_names
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of


def evaluate_workdir(
    workdir: Path,
    *,
    data_dir: str | None = None,
    features_dir: str | None = None,
    as_json: bool = False,
    information: bool = False,
    openke: bool = False,
) -> bool:
    """Print the metrics of a run's best checkpoint, and whether they equal those of its ``results.json``.

    Args:
      workdir: see ``restore_best``.
      data_dir: see ``restore_best``.
      features_dir: see ``restore_best``.
      as_json: print only a JSON report on standard output.
      information: also measure what each modality and expert adds, see ``measure_information``. The report has it as
        ``information``.
      openke: also count ties as OpenKE does, see ``openke_metrics``. The report has these metrics as ``openke``.

    Returns:
      False if ``results.json`` exists and has other metrics.

    Raises:
      UserError: see ``restore_best``.
    """
    console = make_console(sys.stderr if as_json else None)
    restored = restore_best(workdir, data_dir=data_dir, features_dir=features_dir, notify=console.print)
    config, dataset, mapper, model = restored.config, restored.dataset, restored.mapper, restored.model
    inputs = builders.build_inputs(config, dataset.graph, mapper)
    additions = builders.table_additions_of(config, dataset.graph, workdir)
    scorer = builders.build_scorer(config, model, dataset, mapper, inputs, additions)
    fitted = scorer.fit(restored.params)
    ranks = {"valid": scorer.both_dev_ranks(fitted)}
    if len(dataset.graph.test):
        ranks["test"] = scorer.both_test_ranks(fitted)
    reports = {split: scorer.evaluator.report(both[:, 0], split) for split, both in ranks.items()}
    results = results_of(
        restored.saved["config"],
        dataset,
        restored.saved["position"],
        dev=reports["valid"],
        test=reports.get("test"),
        weights=weight_names(dataset.graph, scorer.shares(fitted)),
    )
    if information:
        split = settings_of(config).shard_entities
        measured = model, fitted, dataset.graph, scorer, mapper, ranks["valid"][:, 0]
        results["information"] = measure_information(*measured, split=split)
        if jax.process_index() == 0 and not write_information(workdir, results["information"], results["run"]):
            console.print(f"{workdir} cannot be written, so report and explain will not show this")
    if openke:
        both = {("dev" if split == "valid" else split): (one[:, 0], one[:, 1]) for split, one in ranks.items()}
        results["openke"] = openke_metrics(both)
    if as_json:
        print_json(results)
    else:
        print_results(results, console)
    if openke and not as_json:
        print_openke(results["openke"], console)
    if information and not as_json:
        print_information(results["information"], console)
    before = read_results(workdir)
    if before is None:
        console.print(f"{workdir} contains no results.json to compare with: the run has not finished")
        return True
    same = all(_same(before[split], results[split]) for split in ("dev", "test"))
    console.print(
        f"the same numbers as {workdir / 'results.json'}"
        if same
        else f"NOT the numbers of {workdir / 'results.json'}; that file was written on {before['device']} "
        f"with jax {before['jax']}, this run is on {results['device']} with jax {results['jax']}"
    )
    return same


def openke_metrics(both: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, dict]:
    """Compute the metrics of two ways to count ties, of each split and of test's two directions.

    Args:
      both: by split, the realistic and the optimistic ranks ``[2T]``: those of the tail queries, then of the head
        queries.

    Returns:
      By name: ``strict`` and ``openke``, see ``ranking_metrics``, and ``tied``, the number of queries with ties.
    """
    parts = dict(both)
    if "test" in both:
        halves = [np.split(ranks, 2) for ranks in both["test"]]
        parts |= {f"test, {name}s": (halves[0][side], halves[1][side]) for side, name in enumerate(("tail", "head"))}
    return {
        name: {
            "strict": ranking_metrics(strict),
            "openke": ranking_metrics(optimistic),
            "tied": int((strict != optimistic).sum()),
        }
        for name, (strict, optimistic) in parts.items()
    }


def print_openke(metrics: Mapping[str, dict], console: Console) -> None:
    """Print a table of the two ways to count ties."""
    rows = []
    for name, one in metrics.items():
        row = {"split": name, "queries": one["strict"]["count"], "with ties": one["tied"]}
        for metric, word in (("mrr", "MRR"), ("hits@1", "Hits@1"), ("hits@10", "Hits@10")):
            row |= {word: one["strict"][metric], f"{word}, OpenKE": one["openke"][metric]}
        rows.append(row)
    title = "beside the numbers of an evaluation in which the gold answer wins all ties (OpenKE); do not quote these"
    results_table(rows, title=title, console=console)


def _same(before: dict | None, now: dict | None) -> bool:
    """Whether two reports of a split agree in all groupings that both have; versions of the program differ in these."""
    if before is None or now is None:
        return before is now
    groups = before["groups"].keys() & now["groups"].keys()
    return all(before[part] == now[part] for part in ("overall", "clean")) and all(
        before["groups"][group] == now["groups"][group] for group in groups
    )
