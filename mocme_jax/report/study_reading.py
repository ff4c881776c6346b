"""A study's folder: what was varied, a row a training, and the table made of them; any part may still be missing."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError
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
      table: a row a cell: ``cell``, ``seeds``, ``dev``, ``test``, ``hits@1``, ``hits@10`` (mean and deviation each),
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


def is_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return os.path.lexists(Path(folder) / STUDY)


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
