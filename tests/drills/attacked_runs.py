"""The folders that are attacked: a run, a study and what commands wrote of them, on a tiny graph."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

FIELDS = {
    "data.name": "tiny",
    "data.dir": "{folder}/graph",
    "model.width": 8,
    "model.expert_hidden": 4,
    "model.lend": 0.5,
    "negatives.pool": 16,
    "train.batch_size": 32,
    "train.epochs": 4,
    "train.eval_every": 2,
    "train.patience": 0,
    "negatives.sampling": "uniform",
    "parallel.mapper": "none",
}
_CONFIG = [f"--config.{name}={value}" for name, value in FIELDS.items()]
_PLACE = ["--data-dir={folder}/graph"]
# The flags of each command on an attacked folder; a second word tells two uses of one command apart.
FLAGS = {
    "train": ["--workdir={run}", *_CONFIG, "--config.train.epochs=6"],
    "train ended": ["--workdir={run}", *_CONFIG],
    "evaluate": ["--workdir={run}", *_PLACE],
    "predict": ["--workdir={run}", *_PLACE, "--head=place 1", "--relation=next"],
    "predict file": ["--workdir={run}", *_PLACE, "--queries={folder}/queries.tsv", "--out={run}/answers.tsv"],
    "export": ["--workdir={run}", *_PLACE, "--out={folder}/exported"],
    "report": ["--workdir={run}", *_PLACE, "--out={folder}/report.html"],
    "report study": ["--workdir={run}", "--out={folder}/report.html"],
    "ablate": ["--workdir={run}", *_CONFIG, "--study=components", "--seeds=2", "--cells=full"],
}


def write_graph(folder: Path) -> None:
    """A ring of 24 places with two relations and numbers of some."""
    rng = random.Random(0)
    rows = [(i, name, (i + step) % 24) for i in range(24) for name, step in (("next", 1), ("opposite", 12))]
    rng.shuffle(rows)
    folder.mkdir(parents=True)
    for split, part in (("train", rows[8:]), ("valid", rows[:4]), ("test", rows[4:8])):
        lines = "".join(f"place {head}\t{relation}\tplace {tail}\n" for head, relation, tail in part)
        (folder / f"{split}.txt").write_text(lines)
    numbers = "".join(f"place {i}\tage\t{i % 6}\n" for i in range(24) if i % 4)
    (folder / "numeric_triples.tsv").write_text("entity\tattribute\tvalue\n" + numbers)


def make_runs(folder: Path, command: Callable[[list[str]], object]) -> Path:
    """A folder with ``graph``, ``run``, ``study`` and ``queries.tsv``, made by the commands where it is not there."""
    if (folder / "made").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    write_graph(folder / "graph")
    (folder / "queries.tsv").write_text("place 1\tnext\t?\nplace 2\tnext\t?\n?\topposite\tplace 3\n")
    for run, names in (("run", ("train ended", "evaluate", "predict", "predict file")), ("study", ("ablate",))):
        for name in names:
            flags = [part.format(folder=folder, run=folder / run) for part in FLAGS[name]]
            outcome = command([name.split()[0], *flags])
            if outcome.wrong or outcome.status:
                raise SystemExit(f"{name}: {outcome}")
    (folder / "made").touch()
    return folder
