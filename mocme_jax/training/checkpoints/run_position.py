"""Where a run is beside its arrays, and what makes two runs the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from mocme_jax import __version__
from mocme_jax.config import flat
from mocme_jax.data.graph.knowledge_graph import MODALITY_PART
from mocme_jax.errors import UserError

START_PART = "start vectors of "
"""What the parts of a run that are vectors from elsewhere begin with, see ``start_vectors``."""

# Of what a checkpoint holds; raised whenever that changes.
FORMAT = 5

# Fields that may differ when a run goes on: they change how long or where it runs, not what it computes.
_FREE_FIELDS: tuple[str, ...] = ("train.epochs", "train.patience", "train.save_minutes", "eval.", "parallel.")
# Which modalities these lead to is told by the parts of the graph.
_FREE_FIELDS += ("data.dir", "data.features_dir", "data.modalities", "data.make")


# Of a stranger's run, names and values may be long and many.
_TOLD_FIELDS = 8


@dataclasses.dataclass
class Position:
    """Saved with every checkpoint as JSON.

    Attributes:
      step: steps taken.
      epoch: epochs finished; the place in the next follows from the step.
      evaluated: whether the state of this step has been evaluated.
      best_epoch, best_step, best_mrr: the best evaluation on dev so far; 0, 0, -1 before the first.
      stale: evaluations since then.
      minutes: time spent so far, in training and evaluation.
      stopped: whether early stopping ended the run.
      diverged: the step after which something was not finite, which ended it; 0: none.
    """

    step: int = 0
    epoch: int = 0
    evaluated: bool = False
    best_epoch: int = 0
    best_step: int = 0
    best_mrr: float = -1.0
    stale: int = 0
    minutes: float = 0.0
    stopped: bool = False
    diverged: int = 0

    @property
    def number(self) -> int:
        """Of a checkpoint made here; later ones are higher: a step has one before its evaluation, one after it."""
        return 2 * self.step + self.evaluated

    @property
    def evaluated_step(self) -> int:
        """The last step that may have been evaluated."""
        return self.step - (not self.evaluated)

    @property
    def best_number(self) -> int:
        """Of the checkpoint in best/ that belongs to it."""
        return 2 * self.best_step + 1

    def judge(self, mrr: float, patience: int) -> bool:
        """Takes in an evaluation on dev, and returns whether it is the best so far; ``patience`` 0 is without end."""
        self.evaluated, better = True, mrr > self.best_mrr
        if better:
            self.best_epoch, self.best_step, self.best_mrr = self.epoch, self.step, mrr
        self.stale = 0 if better else self.stale + 1
        self.stopped = bool(patience) and self.stale >= patience
        return better

    def take_best(self, other: Position) -> None:
        """Makes the best evaluation of another position this one's."""
        self.best_epoch, self.best_step, self.best_mrr = other.best_epoch, other.best_step, other.best_mrr


def furthest(positions: Sequence[Position]) -> Position:
    """Of several seeds, the one with the most steps."""
    return max(positions, key=lambda position: position.number)


def identity_of(config: dict, parts: dict[str, str], fingerprint: str) -> dict:
    """What a run is a run of, as JSON; ``parts`` are digests of the graph's and of start vectors', by their names."""
    return {
        "config": config,
        "parts": parts,
        "fingerprint": fingerprint,
        "version": __version__,
        "format": FORMAT,
    }


def check_format(workdir: Any, saved: dict) -> None:
    """Raises a UserError where this version does not read a checkpoint's kind."""
    if saved.get("format") != FORMAT:
        raise UserError(
            f"{workdir}: holds a run of mocme_jax {saved.get('version')} in format {saved.get('format')}, and this one "
            f"({__version__}) reads format {FORMAT}; use that version, or name another folder with --workdir=DIR"
        )


def check_same_run(workdir: Any, saved: dict, identity: dict) -> None:
    """Passes where a checkpoint's run may go on as this one.

    Raises:
      UserError: graph, features or config are others; the message says which parts or fields.
    """
    check_format(workdir, saved)
    elsewhere = "or name another folder with --workdir=DIR"
    if other := differing(saved["parts"], identity["parts"]):
        new = [part for part in other if part.startswith(MODALITY_PART) and part not in saved["parts"]]
        kept = ",".join(part.removeprefix(MODALITY_PART) for part in saved["parts"] if part.startswith(MODALITY_PART))
        back = f"leave out what is new with --config.data.modalities={kept or 'structure'}"
        what = "from other vectors" if all(part.startswith(START_PART) for part in other) else None
        raise UserError(
            f"{workdir}: holds a run {what or 'on another graph or other features'}: {', '.join(other)[:300]} "
            f"differ{'s' if len(other) == 1 else ''}; {back[:300] if new == other else 'put them back'}, {elsewhere}"
        )
    then, now = (as_json(flat(one["config"])) for one in (saved, identity))
    changed = [
        f"{path} ({then.get(path)} there, {now.get(path)} now)"
        for path in {**then, **now}
        if not path.startswith(_FREE_FIELDS) and then.get(path) != now.get(path)
    ]
    if changed:
        told = ", ".join(one[:100] for one in changed[:_TOLD_FIELDS])
        raise UserError(f"{workdir}: holds a run whose config differs in {told}; set back, {elsewhere}")


def differing(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """The parts of a graph that are not the same, by their digests."""
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


def as_json(value: Any) -> Any:
    """As JSON gives it back: tuples as lists."""
    return json.loads(json.dumps(value))
