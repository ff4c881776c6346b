"""Seeds of one configuration, trained at once, each scored by its own best parameters.

They share the graph and its dev split, so that their scores can be paired.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.evaluation.metrics import ranking_metrics
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.logs.metrics_log import MetricsLog, read_metrics
from mocme_jax.training.logs.progress import Progress
from mocme_jax.training.logs.trackers import Callback
from mocme_jax.training.loop import Loop
from mocme_jax.training.preemption import Preemption
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import with_batch_that_fits

# [epoch, dev MRR] for each evaluation of a training, as a row holds it.
Curve = Sequence[Sequence[float]]

# A point is pruned only after this number of points has finished, and not at its first evaluations, which tell little
# about the last.
START_UP, WARM_UP = 5, 1


class Trained(NamedTuple):
    """What became of one seed.

    Attributes:
      row: what was measured, for JSON: ``seed``, ``dev``, ``test`` and ``clean`` metrics, ``best_epoch``, ``epochs``
        (trained until it stopped), ``curve`` of dev MRR, ``weights``; the step at which it ``diverged``, if it did,
        and the epoch at which it was ``pruned``. One that diverged before it was evaluated has a dev MRR of 0, and
        no test.
      ranks: float64 ``[2T]`` of the test triples, tails first; None where test was not looked at.
    """

    row: dict
    ranks: np.ndarray | None


class _Pruned(Exception):
    """Leaves the loop after an evaluation."""


def train_seeds(
    config: ConfigDict,
    dataset: builders.Dataset,
    seeds: Sequence[int],
    folder: Path,
    *,
    preemption: Preemption | None = None,
    console: Console | None = None,
    test: bool = True,
    prune: Callable[[Curve], str | None] | None = None,
) -> list[Trained]:
    """Trains seeds to the last epoch, or until each has stopped; then scores each seed's best parameters.

    Args:
      seeds: S of them; several are lanes of one compiled program.
      folder: holds the training while it is under way; one that is there goes on.
      test: whether test is scored; a search does without.
      prune: for one seed, without test: takes its curve after each evaluation but the last, and returns why the
        training is to end there, or None.

    Raises:
      Stopped: a signal has asked for the end, and the state is on the disk.
      UserError: the folder cannot be written, or holds something else.
    """
    mapper = builders.build_mapper(config)
    told = [] if console is None else [console.print]
    config = with_batch_that_fits(config, len(dataset.graph.train), mapper.count, *told)
    loop = Loop(config, dataset, mapper, seeds, preemption or Preemption())
    with open_checkpoints(folder) as checkpoints, Progress(loop.schedule.epochs, console=console) as progress:
        state = loop.resume(checkpoints, folder, progress.note)

        def judge(_numbers: Mapping[str, float], epoch: int) -> None:
            # The row of this evaluation is in the file by now, and so are those of before a stop.
            if prune and epoch < loop.schedule.epochs and (why := prune(_curve(_evaluations(folder)))):
                raise _Pruned(why)

        kept = dict(keep_until_step=loop.position.evaluated_step, tensorboard=False, trackers=[Callback(judge)])
        try:
            with MetricsLog(folder, **kept) as log:
                loop.run(state, log, progress)
        except _Pruned as why:
            evaluations = _evaluations(folder)
            progress.note(f"pruned at epoch {evaluations[-1]['epoch']}: {why}")
            return [_pruned(seeds[0], evaluations)]
        curves = _evaluations(folder)
        return [_score(loop, number, curves, test) for number in range(len(seeds))]


def why_pruned(curve: Curve, finished: Sequence[Curve]) -> str | None:
    """Why a training is to end after its latest evaluation, or None if it is to go on: the median rule.

    As Optuna's ``MedianPruner`` has it: the best dev MRR so far is below the median of what finished points had at the
    same epoch.
    """
    epoch, best = curve[-1][0], max(mrr for _, mrr in curve)
    others = [mrr for other in finished for its_epoch, mrr in other if its_epoch == epoch]
    if len(finished) < START_UP or len(curve) <= WARM_UP or not others:
        return None
    median = float(np.median(others))
    if best >= median:
        return None
    of = f"{len(others)} finished point{'s' if len(others) > 1 else ''}"
    return f"its best dev MRR, {best:.4f}, is below {median:.4f}, the median of {of} at this epoch"


def _evaluations(folder: Path) -> list[dict]:
    """The rows of evaluations, those of before a stop too."""
    wanted = {"epoch": int, "dev": {"mrr": float}, "weights": {str: float}}
    return [row for row in read_metrics(folder) if misfit(row, wanted) is None]


def _curve(evaluations: list[dict]) -> list[list]:
    return [[row["epoch"], row["dev"]["mrr"]] for row in evaluations]


def _pruned(seed: int, evaluations: list[dict]) -> Trained:
    best, last = max(evaluations, key=lambda row: row["dev"]["mrr"]), evaluations[-1]["epoch"]
    row = {"seed": seed, "best_epoch": best["epoch"], "epochs": last, "curve": _curve(evaluations), "pruned": last}
    return Trained(row | {"dev": best["dev"], "weights": best["weights"]}, None)


def _score(loop: Loop, number: int, evaluations: list[dict], test: bool) -> Trained:
    params, position, seed = loop.best(number), loop.positions[number], loop.seeds[number]
    curve = _curve([row for row in evaluations if row.get("seed", seed) == seed])
    row = {"seed": seed, "best_epoch": position.best_epoch, "epochs": position.epoch, "curve": curve}
    if position.diverged:
        row["diverged"] = position.diverged
    if params is None:
        # It counts as the worst that there can be.
        return Trained(row | {"dev": {"mrr": 0.0}}, None)
    fitted = loop.scorer.fit(params)
    ranks, row["dev"] = None, ranking_metrics(loop.scorer.dev_ranks(fitted))
    if test:
        ranks = loop.scorer.test_ranks(fitted)
        metrics = loop.scorer.evaluator.scored(ranks, "test")
        row |= {"test": metrics["overall"], "clean": metrics["clean"]}
    return Trained(row | {"weights": loop.shares(fitted)}, ranks)
