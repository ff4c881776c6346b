"""The position of a run, and what identifies a run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from mocme_jax import __version__
from mocme_jax.config import flat
from mocme_jax.config_fields import FIELDS
from mocme_jax.data.graph.knowledge_graph import MODALITY_PART
from mocme_jax.errors import UserError

START_PART = "start vectors of "
"""The prefix of the names of those parts of a run that are initial vectors; see ``start_vectors``."""

# The format of a checkpoint's content; increased with every change.
FORMAT = 6

# Fields that may differ when a run resumes: they change how long or where it runs, not what it computes.
_FREE_FIELDS: tuple[str, ...] = ("train.epochs", "train.patience", "train.save_minutes", "parallel.")
# The modalities that these lead to are compared as parts of the graph.
_FREE_FIELDS += ("data.dir", "data.features_dir", "data.modalities", "data.make")
# Earlier versions had this group.
_FREE_FIELDS += ("eval.",)


# Of a stranger's run, names and values may be long and many.
_TOLD_FIELDS = 8


@dataclasses.dataclass
class Position:
    """The position of a run, which every checkpoint saves as JSON.

    Attributes:
      step: the number of steps taken.
      epoch: the number of epochs finished; the position in the next one follows from the step.
      evaluated: whether the state after this step has been evaluated.
      best_epoch: the epoch of the best evaluation on dev so far; 0 before the first.
      best_step: its step; 0 before the first.
      best_mrr: its MRR; -1 before the first.
      stale: the number of evaluations since then.
      minutes: the time spent on training and evaluation so far.
      stopped: whether early stopping ended the run.
      diverged: the step after which a value was not finite, which ended the run; 0: none.
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
        """The number of a checkpoint at this position; it is higher after the step's evaluation than before."""
        return 2 * self.step + self.evaluated

    @property
    def evaluated_step(self) -> int:
        """The last step that may have been evaluated."""
        return self.step - (not self.evaluated)

    @property
    def best_number(self) -> int:
        """The number of the checkpoint in ``best/`` that belongs to this position."""
        return 2 * self.best_step + 1

    def judge(self, mrr: float, patience: int) -> bool:
        """Record an evaluation on dev, and return whether it is the best so far.

        Args:
          mrr: the MRR on dev.
          patience: the number of evaluations without improvement after which the run stops; 0: no early stopping.
        """
        self.evaluated, better = True, mrr > self.best_mrr
        if better:
            self.best_epoch, self.best_step, self.best_mrr = self.epoch, self.step, mrr
        self.stale = 0 if better else self.stale + 1
        self.stopped = bool(patience) and self.stale >= patience
        return better

    def take_best(self, other: Position) -> None:
        """Copy the best evaluation of another position."""
        self.best_epoch, self.best_step, self.best_mrr = other.best_epoch, other.best_step, other.best_mrr


def furthest(positions: Sequence[Position]) -> Position:
    """Return the position with the most steps."""
    return max(positions, key=lambda position: position.number)


def identity_of(config: dict, parts: dict[str, str], fingerprint: str) -> dict:
    """Return what identifies a run, as JSON.

    Args:
      config: the config as a dict.
      parts: the digests of the parts of the graph and of initial vectors, by name.
      fingerprint: the digest of the graph.
    """
    return {
        "config": config,
        "parts": parts,
        "fingerprint": fingerprint,
        "version": __version__,
        "format": FORMAT,
    }


def check_format(workdir: Any, saved: dict) -> None:
    """Check that this version reads the format of a checkpoint.

    Raises:
      UserError: it does not.
    """
    if saved.get("format") != FORMAT:
        version, kind = (str(saved.get(name))[:40] for name in ("version", "format"))
        raise UserError(
            f"{workdir}: contains a run of mocme_jax {version} in format {kind}, but this version ({__version__}) "
            f"reads format {FORMAT}; use that version, or name another folder with --workdir=DIR"
        )


def hint_at_old_features(parts: Sequence[str]) -> str:
    """Return what else may explain that these parts differ: how runs of 0.4.0 and earlier used features."""
    if not all(part.startswith(MODALITY_PART) for part in parts):
        return ""
    return (
        "; if a line above says that rows look filled in, save the file as it says: runs of 0.4.0 and earlier used "
        "these rows; runs of 0.4.0 with features that are mostly 0 can be read by that version only"
    )


def check_same_run(workdir: Any, saved: dict, identity: dict) -> None:
    """Check that a checkpoint's run may be resumed as this one.

    Raises:
      UserError: the graph, the features or the config differ. The message names the parts or fields.
    """
    check_format(workdir, saved)
    elsewhere = "or name another folder with --workdir=DIR"
    if other := differing(saved["parts"], identity["parts"]):
        new = [part for part in other if part.startswith(MODALITY_PART) and part not in saved["parts"]]
        kept = ",".join(part.removeprefix(MODALITY_PART) for part in saved["parts"] if part.startswith(MODALITY_PART))
        back = f"leave out the new modalities with --config.data.modalities={kept or 'structure'}"
        what = "from other start vectors" if all(part.startswith(START_PART) for part in other) else None
        raise UserError(
            f"{workdir}: contains a run {what or 'on another graph or other features'}: {', '.join(other)[:300]} "
            f"differ{'s' if len(other) == 1 else ''}; {back[:300] if new == other else 'restore them'}, {elsewhere}"
            f"{'' if new == other else hint_at_old_features(other)}"
        )
    now = as_json(flat(identity["config"]))
    # A field that the run does not have yet is at the default that does what its version did.
    then = as_json({path: FIELDS[path].default for path in now if path in FIELDS} | flat(saved["config"]))
    changed = [
        f"{path} ({then.get(path)} there, {now.get(path)} now)"
        for path in {**then, **now}
        if not path.startswith(_FREE_FIELDS) and then.get(path) != now.get(path)
    ]
    if changed:
        told = ", ".join(one[:100] for one in changed[:_TOLD_FIELDS])
        raise UserError(f"{workdir}: contains a run whose config differs in {told}; restore these values, {elsewhere}")


def differing(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the names of the parts whose digests differ."""
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


def as_json(value: Any) -> Any:
    """Convert a value to what JSON returns: tuples become lists."""
    return json.loads(json.dumps(value))
