"""The page about a study, of what its folder holds; any part of it may still be missing."""

import dataclasses
import itertools
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.config import flat
from mocme_jax.config_values import show
from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError
from mocme_jax.flags import PLACES_MEANING, flags_of
from mocme_jax.report.charts import Chart, Series, against, lines
from mocme_jax.report.expert_weights import bar
from mocme_jax.studies.study_folder import STUDY, TABLE, TABLE_ROW, TOLD, read_rows
from mocme_jax.studies.study_table import spread

# What the table has of each cell: split and metric of the rows.
_SCORES = {"dev": ("dev", "mrr"), "test": ("test", "mrr"), "hits@1": ("test", "hits@1"), "hits@10": ("test", "hits@10")}


@dataclasses.dataclass(frozen=True)
class Study:
    """A study, as far as it has come.

    Attributes:
      folder: where it lies.
      told: what ``study.json`` holds: ``study``, ``reference``, ``seeds``, ``config``, ``cells`` (changes by cell),
        ``graph``, ``warnings``, ``jax``, ``device``, ``version``, ``fingerprint``.
      rows: a finished training each: ``cell``, ``seed``, ``dev``, ``test``, ``clean``, ``curve``, ``weights`` ...; one
        that diverged before it was evaluated has no ``test``.
      table: one row per cell: ``cell``, ``seeds``, ``dev``, ``test``, ``hits@1``, ``hits@10`` (each: mean, deviation),
        ``difference``, ``p``; made of ``rows`` where the study has not written it yet.
    """

    folder: Path
    told: dict[str, Any]
    rows: list[dict[str, Any]]
    table: list[dict[str, Any]]

    @property
    def cells(self) -> list[str]:
        """All cells, the reference first."""
        reference = self.told["reference"]
        return [reference, *(cell for cell in self.told["cells"] if cell != reference)]

    def of(self, cell: str) -> list[dict[str, Any]]:
        """The rows of a cell that were scored on test."""
        return [row for row in self.rows if row["cell"] == cell and "test" in row]

    @property
    def unfinished(self) -> list[tuple[str, list[int]]]:
        """Cells that lack seeds, with the seeds that they lack."""
        found = []
        for cell in self.cells:
            done = {row["seed"] for row in self.rows if row["cell"] == cell}
            missing = [seed for seed in self.told["seeds"] if seed not in done]
            if missing:
                found.append((cell, missing))
        return found


def read_study(folder: Path) -> Study:
    """Reads a study's folder.

    Raises:
      UserError: a file is damaged, or is none of a study's.
    """
    folder = Path(folder)
    told = read_json(folder / STUDY)
    wrong = misfit(told, TOLD)
    if wrong is None and told["reference"] not in told["cells"]:
        wrong = "it lacks a reference among its cells"
    if wrong:
        raise UserError(f"{folder / STUDY}: does not describe a study: {wrong}; run the study again to write it")
    # The last of a cell and seed; those of a search that did without test have nothing to show here.
    shown = [row for row in read_rows(folder) if row.keys() & {"test", "diverged"}]
    rows = list({(row["cell"], row["seed"]): row for row in shown}.values())
    study = Study(folder, {"warnings": [], "jax": "", "device": "", "version": "", "fingerprint": ""} | told, rows, [])
    table = _read_table(folder / TABLE) or summarised(study)
    return dataclasses.replace(study, table=sorted(table, key=lambda row: row["cell"] != told["reference"]))


def _read_table(path: Path) -> list[dict[str, Any]] | None:
    """The study's own table, or None where there is none that can be used."""
    if not os.path.lexists(path):
        return None
    table = read_json(path)
    if misfit(table, {"rows": [{str: object}]}):
        return None
    # A cell whose seeds all diverged before they were evaluated has no scores.
    rows = [row for row in table["rows"] if "diverged" not in row or "test" in row]
    return None if misfit(rows, [TABLE_ROW]) else [{"difference": None, "p": None} | row for row in rows]


def summarised(study: Study) -> list[dict[str, Any]]:
    """The table of what is finished, without a test of significance."""
    table = []
    for cell in study.cells:
        rows = study.of(cell)
        if rows:
            means = {name: spread([row[split][key] for row in rows]) for name, (split, key) in _SCORES.items()}
            table.append({"cell": cell, "seeds": len(rows), **means, "difference": None, "p": None})
    reference = next((row for row in table if row["cell"] == study.told["reference"]), None)
    for row in table:
        if reference is not None:
            row["difference"] = row["test"]["mean"] - reference["test"]["mean"]
    return table


# Lines of one chart that can still be told apart, beside the reference's.
_A_CHART = 4


def study_context(study: Study) -> dict[str, Any]:
    """What the template ``study.html`` takes."""
    told = study.told
    experts = dict.fromkeys(name for row in study.rows for name in weights_of(row))
    colours = {name: place for place, name in enumerate(experts)}
    shared = shared_numbers(told["cells"], told["config"], told["reference"])
    return {
        "title": f"Study {told['study']} on {told['graph'].get('name', 'a graph')}",
        "told": told,
        "flags": repeat_flags(told),
        "places": PLACES_MEANING,
        "changes": [(cell, [f"{k}={show(v)}" for k, v in told["cells"][cell].items()]) for cell in study.cells],
        "table": study.table,
        "unfinished": study.unfinished,
        "planned": len(told["seeds"]) * len(told["cells"]),
        "done": len(study.rows),
        "dots": dots(study.table, told["reference"]),
        "curves": curve_charts(study),
        "weights": [
            bar(cell, "", {name: told["mean"] for name, told in weights.items()}, colours)
            for cell in study.cells
            if (weights := mean_weights(study, cell))
        ],
        "against": against_charts(study, shared, colours),
        "seconds": sum(row.get("seconds") or 0 for row in study.rows),
        "clean": clean_rows(study),
    }


def repeat_flags(told: Mapping[str, Any]) -> list[str]:
    """The flags with which ``mocme_jax.ablate`` runs the study again."""
    # Who copies the command lets a shell read what the study was called.
    own = ["--workdir=DIR", f"--study={shlex.quote(told['study'])}", f"--seeds={len(told['seeds'])}"]
    return [*own, *flags_of(told["config"])]


def dots(table: Sequence[Mapping[str, Any]], reference: str) -> dict[str, Any] | None:
    """Places in percent of a row of dots: the mean test MRR of each cell with its deviation, about the reference's."""
    held = [row for row in table if row["test"]["mean"] is not None]
    if not held:
        return None
    spans = [(row["test"]["mean"], row["test"]["deviation"] or 0.0) for row in held]
    low, high = min(m - d for m, d in spans), max(m + d for m, d in spans)
    room = max(high - low, 1e-3) * 0.06
    low, high = low - room, high + room

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    rows = [
        {
            "cell": row["cell"],
            "mean": mean,
            "deviation": row["test"]["deviation"],
            "at": place(mean),
            "from": place(mean - deviation),
            "width": round(place(mean + deviation) - place(mean - deviation), 2),
            "reference": row["cell"] == reference,
        }
        for row, (mean, deviation) in zip(held, spans, strict=True)
    ]
    return {"rows": rows, "low": low, "high": high, "line": next((row for row in rows if row["reference"]), None)}


def curve_charts(study: Study) -> list[Chart]:
    """Dev MRR by epoch, the mean over the seeds of each cell; a few cells a chart, each beside the reference."""
    courses = {cell: _mean_curve([row["curve"] for row in study.of(cell) if row.get("curve")]) for cell in study.cells}
    courses = {cell: course for cell, course in courses.items() if course[0]}
    reference = study.told["reference"]
    others = [cell for cell in courses if cell != reference]
    high = max((max(y) for _, y in courses.values()), default=0) * 1.05
    label, charts = "MRR on dev by epoch, mean over seeds", []
    for first in range(0, max(len(others), 1), _A_CHART):
        cells = [*([reference] if reference in courses else []), *others[first : first + _A_CHART]]
        if cells:
            series = [Series(cell, place, *courses[cell]) for place, cell in enumerate(cells)]
            charts.append(lines(f"curves-{first}", "MRR on dev", label, series, high=high))
    return charts


def _mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], list[float]]:
    """Epochs that every seed reached, and the mean there: beyond them the mean would be of fewer, and jump."""
    if not curves:
        return [], []
    by_epoch = [{epoch: value for epoch, value in curve if value is not None} for curve in curves]
    epochs = sorted(set.intersection(*(set(one) for one in by_epoch)))
    return epochs, [float(np.mean([one[epoch] for one in by_epoch])) for epoch in epochs]


def weights_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Each expert's mean share of the weights, as a row has them; none of a row that an earlier version wrote."""
    return {name: share for name, share in row.get("weights", {}).items() if _is_number(share)}


def mean_weights(study: Study, cell: str) -> dict[str, dict[str, float | None]]:
    """Mean and deviation over the seeds of each expert's share."""
    rows = [weights_of(row) for row in study.of(cell)]
    return {name: spread([row[name] for row in rows if name in row]) for name in dict.fromkeys(itertools.chain(*rows))}


def shared_numbers(
    cells: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any], reference: str
) -> dict[str, dict[str, float]]:
    """Fields to which at least three cells give different numbers: field -> cell -> number.

    The reference is among them with its config's own number, where it has one.
    """
    found: dict[str, dict[str, float]] = {}
    for cell, changes in cells.items():
        for field, value in flat(changes).items():
            if _is_number(value):
                found.setdefault(field, {})[cell] = value
    own = flat(config)
    for field, numbers in found.items():
        if reference not in numbers and _is_number(own.get(field)):
            numbers[reference] = own[field]
    return {field: numbers for field, numbers in found.items() if len(set(numbers.values())) > 2}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _points(cells: Mapping[str, float], told: Mapping[str, Mapping]) -> list[tuple[float, float, float]]:
    """Number, mean and deviation of each cell that has them."""
    return [(x, told[cell]["mean"], told[cell]["deviation"] or 0) for cell, x in cells.items() if cell in told]


def against_charts(study: Study, shared: Mapping[str, Mapping[str, float]], colours: Mapping[str, int]) -> list[Chart]:
    """Shares of each expert, and test MRR, over a number that the cells differ in: noise, or what is missing."""
    charts = []
    for number, (field, values) in enumerate(shared.items()):
        cells = {cell: value for cell, value in values.items() if study.of(cell)}
        tests = {row["cell"]: row["test"] for row in study.table}
        weights = {cell: mean_weights(study, cell) for cell in cells}
        points = _points(cells, tests)
        for name, colour in colours.items():
            of = _points(cells, {cell: row[name] for cell, row in weights.items() if name in row})
            if len(of) > 1:
                charts.append(against(f"against-{number}-{colour}", f"Share of {name} over {field}", of, colour))
        if len(points) > 1:
            charts.append(against(f"against-{number}-test", f"Test MRR over {field}", points, 7))
    return charts


def clean_rows(study: Study) -> list[dict[str, Any]]:
    """Each cell on test's clean rows if these are fewer: ``questions``, ``mrr``, ``difference``, ``p``."""
    found, table = [], {row["cell"]: row for row in study.table}
    for cell in study.cells:
        rows = [row for row in study.of(cell) if row.get("clean") and row["clean"]["count"] < row["test"]["count"]]
        values = [row["clean"]["mrr"] for row in rows if row["clean"]["mrr"] is not None]
        if values:
            own = table.get(cell, {})
            row = {"cell": cell, "questions": rows[0]["clean"]["count"], "mrr": float(np.mean(values))}
            found.append(row | {"difference": own.get("clean_difference"), "p": own.get("clean_p")})
    return found
