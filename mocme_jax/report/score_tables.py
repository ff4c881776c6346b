"""Scores of one run or several: overall, by groups of queries, by rank, and how far probabilities hold."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mocme_jax.evaluation.metrics import mean_and_margin, ranking_metrics
from mocme_jax.report import charts
from mocme_jax.report.charts import Chart, Key
from mocme_jax.report.finished_run import Finished
from mocme_jax.report.run_measurements import Measured
from mocme_jax.training.logs.run_results import joined_scores_of, scores_of

BEFORE, AFTER = 7, 0
"""Colours of the reliability diagram."""


class Row(NamedTuple):
    """A row of a table of scores.

    Attributes:
      metrics: as of ``ranking_metrics``.
      margin: half the width of the 95% interval of the MRR, where there are ranks to make it of.
      more: the MRR above a baseline's.
      more_margin: the same of that difference, query by query.
    """

    name: str
    metrics: dict[str, Any]
    margin: float | None = None
    more: float | None = None
    more_margin: float | None = None


class Group(NamedTuple):
    """One group of queries: its name, how many they are, and metrics by run (None where a run has no such group)."""

    name: str
    count: int
    metrics: list[dict[str, Any] | None]


def splits_of(run: Finished) -> dict[str, dict[str, Any]]:
    """The metrics of test, of its clean rows where these are fewer, and of dev, by what they are called."""
    dev, *rest = scores_of(run.results).items()
    return dict([*rest, dev])


def side_by_side(measured: Sequence[Measured], baseline: Measured | None) -> list[tuple[str, list[Row]]]:
    """For each split a row for each run, beside the baseline if there is one; test has intervals."""
    found = []
    for name in dict.fromkeys(name for one in measured for name in splits_of(one.run)):
        other = None if baseline is None else splits_of(baseline.run).get(name)
        rows = []
        for one in measured:
            if (metrics := splits_of(one.run).get(name)) is None:
                continue
            margin = more = more_margin = None
            has_ranks = name == "test" and one.ranks is not None
            if has_ranks:
                margin = mean_and_margin(1 / one.ranks)[1]
            if other is not None and one.run is not baseline.run and None not in (metrics["mrr"], other["mrr"]):
                more = metrics["mrr"] - other["mrr"]
                if has_ranks:
                    more_margin = mean_and_margin(1 / one.ranks - 1 / baseline.ranks)[1]
            rows.append(Row(one.run.name, metrics, margin, more, more_margin))
        found.append((name, rows))
    return found


def all_rows(run: Finished) -> list[Row]:
    """Every split, then test by direction and by whether train shows the entities, and joins them."""
    rows = [Row(name, metrics) for name, metrics in splits_of(run).items()]
    groups = {} if run.results["test"] is None else run.results["test"]["groups"]
    words = {"tail": "test, tail queries", "head": "test, head queries"}
    rows += [Row(words[name], groups["direction"][name]) for name in words if name in groups.get("direction", {})]
    for group, word in (("answer_seen", "answer"), ("query_entity_seen", "query entity")):
        named = groups.get(group, {})
        if len(named) > 1:
            rows += [Row(f"test, {word} {name} in train", metrics) for name, metrics in named.items()]
    rows += [Row(name, metrics) for name, metrics in joined_scores_of(run.results).items()]
    return rows


def groups_of(runs: Sequence[Finished], group: str, by_count: bool = False) -> list[Group]:
    """Test's groups of one kind, with the metrics of each run; in the order of their names, or the largest first."""
    found = [(run.results["test"] or {}).get("groups", {}).get(group, {}) for run in runs]
    names = sorted({name for one in found for name in one})
    rows = [
        Group(name, max(one[name]["count"] for one in found if name in one), [o.get(name) for o in found])
        for name in names
    ]
    return sorted(rows, key=lambda row: -row.count) if by_count else rows


def by_answer_modalities(measured: Sequence[Measured]) -> list[Group]:
    """Test by what the answer carries in the run with most modalities, so that a baseline is judged on the same groups.

    The runs must be of the same triples.
    """
    richest = max(measured, key=lambda one: len(one.model.modalities))
    if any(one.ranks is None for one in measured):
        return []
    patterns = np.asarray(richest.patterns, object)[richest.asked[:, 2]].astype(str)
    rows = [
        Group(str(name), int((patterns == name).sum()), [ranking_metrics(m.ranks[patterns == name]) for m in measured])
        for name in np.unique(patterns)
    ]
    return sorted(rows, key=lambda row: -row.count)


def rank_charts(measured: Sequence[Measured]) -> list[Chart]:
    """How test's ranks are spread: by direction where there is one run, beside each other where there are several."""
    if any(one.ranks is None for one in measured):
        return []
    edges = charts.rank_edges(max(int(np.ceil(one.ranks.max())) for one in measured))
    one = measured[0]
    half = len(one.ranks) // 2
    named = [("tail queries", 2, one.ranks[:half]), ("head queries", 3, one.ranks[half:])]
    title = "Ranks on test, by direction"
    if len(measured) == 1:
        return [charts.ranks("directions", title, edges, named)]
    runs = [(one.run.name, place, one.ranks) for place, one in enumerate(measured)]
    return [
        charts.ranks("ranks", "Ranks on test", edges, runs),
        charts.ranks("directions", f"{title}: {one.run.name}", edges, named),
    ]


def reliability_charts(measured: Sequence[Measured]) -> list[Chart]:
    """How often the top answers are right, by how sure the model was, before and after the fit."""
    found = []
    for number, one in enumerate(measured):
        errors = one.model.calibration.report["splits"][one.judged_on]
        keys = [
            Key(f"{name} calibration", colour, f"ECE {errors[name]['error']:.3f}")
            for name, colour in (("before", BEFORE), ("after", AFTER))
        ]
        title = f"Top answers on {one.judged_on}" + (f": {one.run.name}" if len(measured) > 1 else "")
        label = f"Top answers on {one.judged_on}, {one.run.name}"
        named = list(zip(keys, one.reliability.values(), strict=True))
        found.append(charts.reliability(f"reliability-{number}", title, label, named))
    return found
