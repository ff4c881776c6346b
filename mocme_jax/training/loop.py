"""The loop: calls of the training program, evaluations and saves between them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.parallel.mesh import WHOLE
from mocme_jax.parallel.processes import everyone
from mocme_jax.training.checkpoints.run_position import Position
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.logs import nonfinite
from mocme_jax.training.logs.metrics_log import MetricsLog
from mocme_jax.training.logs.progress import Progress
from mocme_jax.training.logs.run_results import weight_names
from mocme_jax.training.preemption import Preemption, Stopped
from mocme_jax.training.schedule import Pace, Schedule, Timer
from mocme_jax.training.setup import Training
from mocme_jax.training.train_state import TrainState


@dataclasses.dataclass
class Loop:
    """Trains to the last epoch, or until dev stops getting better.

    Attributes:
      workdir: the run's folder.
      graph: what is trained on.
      batch_size: B.
      schedule: when to evaluate, save and end.
      training: the compiled program and its data.
      encode: the compiled encoding of all entities.
      evaluator: of dev.
      saves: the run's checkpoints.
      position: where the run is; kept up to date.
      preemption: whether a signal has asked for the end.
      log: takes a row an evaluation.
      progress: takes what a person watches.
      began: when the command began, by ``time.perf_counter``.
    """

    workdir: Path
    graph: KnowledgeGraph
    batch_size: int
    schedule: Schedule
    training: Training
    encode: Callable
    evaluator: Evaluator
    saves: Saves
    position: Position
    preemption: Preemption
    log: MetricsLog
    progress: Progress
    began: float

    def __post_init__(self):
        # A run that goes on finds its own position saved; a new one has nothing to lose.
        self._saved = self.position.number
        self._pace, self._since_saved, self._since_counted = Pace(), Timer(), Timer()

    def run(self, state: TrainState) -> None:
        """Runs from a state at the position to the end.

        Raises:
          Stopped: a signal has asked for it; the state is on the disk.
          FloatingPointError: a step's loss or gradient is not finite; `nonfinite.json` tells of it.
          UserError: a save or a row can't be written.
        """
        schedule, position = self.schedule, self.position
        while True:
            due = schedule.evaluates(position.step) and not position.evaluated
            ended = position.stopped or (position.step >= schedule.end and not due)
            limit = schedule.next_evaluation(position.step + 1) - position.step
            stop, save, steps = self._agreed(limit)
            if stop:
                self._stop(state)
            if due:
                state = self._evaluate(state)
            elif ended:
                return
            else:
                if save and position.number != self._saved:
                    self._save(self._whole(state))
                state = self._train(state, steps)

    def _agreed(self, limit: int) -> tuple[bool, bool, int]:
        """Whether to stop, whether to save, and how many steps to take: the same in every process.

        Any process may ask for the end; the rest is as process 0 sees it.
        """
        late = self._since_saved.seconds >= 60 * self.schedule.save_minutes
        votes = everyone([self.preemption.requested, late, self._pace.length(limit)])
        return bool(votes[:, 0].any()), bool(votes[0, 1]), int(votes[0, 2])

    def _train(self, state: TrainState, steps: int) -> TrainState:
        schedule, position = self.schedule, self.position
        start = time.perf_counter()
        count = self.training.mapper.place(np.int32(steps), WHOLE)
        state, latest = self.training.program(state, self.training.data, count)
        latest = {name: float(value) for name, value in latest.items()}
        self._pace.took(steps, time.perf_counter() - start)
        if not np.isfinite(latest["loss/total"]) or not np.isfinite(latest["norm/gradient"]):
            self._tell_of_nonfinite(state, latest)
        if position.step == 0:
            self.progress.note(f"first step done {time.perf_counter() - self.began:.1f} s after the start")
        position.step += steps
        position.epoch, done = divmod(position.step, schedule.steps_per_epoch)
        position.evaluated = False
        self.progress.update(position.epoch + 1, done, schedule.steps_per_epoch)
        return state

    def _evaluate(self, state: TrainState) -> TrainState:
        """Scores dev, writes the row, saves; returns the state with its sums begun anew."""
        schedule, position = self.schedule, self.position
        self.progress.evaluating(position.epoch)
        rate = self._pace.steps_a_second()
        rate = rate and rate * self.batch_size
        taken = int(state.sums.steps)
        means = {name: float(total) / taken for name, total in state.sums.totals.items()}
        sums = jax.tree.map(np.zeros_like, jax.device_get(state.sums))
        state = state._replace(sums=self.training.mapper.place(sums, WHOLE))
        whole = self._whole(state)
        start = time.perf_counter()
        vectors, weights = self.encode(state.evaluated, self.training.inputs)
        dev = self.evaluator.metrics(state.evaluated.model, vectors, "valid")
        seconds = time.perf_counter() - start
        self.log.write(
            {
                "epoch": position.epoch,
                "step": position.step,
                "train": means | {"norm/parameters": float(optax.tree.norm(whole.params))},
                "dev": dev,
                "weights": weight_names(self.graph, weights),
                "speed": {"triples/s": rate, "evaluation seconds": seconds, "queries/s": dev["count"] / seconds},
            }
        )
        position.evaluated = True
        if dev["mrr"] > position.best_mrr:
            position.best_epoch, position.best_step = position.epoch, position.step
            position.best_mrr, position.stale = dev["mrr"], 0
        else:
            position.stale += 1
        position.stopped = bool(schedule.patience) and position.stale >= schedule.patience
        self._save(whole)
        shown = {"loss": means["loss/total"], "dev MRR": dev["mrr"], "triples/s": rate}
        self.progress.update(position.epoch, schedule.steps_per_epoch, schedule.steps_per_epoch, shown)
        if position.stopped:
            self.progress.note(
                f"dev has not got better for {position.stale} evaluations: stopped at epoch {position.epoch}"
            )
        return state

    def _whole(self, state: TrainState) -> TrainState:
        """As arrays of all processes, split ones as one table: for checkpoints, and for norms over all of them."""
        return self.training.mapper.whole_tables(state, self.training.plan.spec)

    def _save(self, whole: TrainState) -> None:
        """Saves where the run is, and the best state if this is it."""
        position = self.position
        position.minutes += self._since_counted.again() / 60
        if position.evaluated and position.best_step == position.step:
            self.saves.save("best", position, whole.evaluated)
        self.saves.save("last", position, whole)
        self._saved = position.number
        self._since_saved.again()

    def _stop(self, state: TrainState) -> None:
        position, schedule = self.position, self.schedule
        if position.number != self._saved:
            self._save(self._whole(state))
        self.saves.checkpoints.wait()
        if not position.step:
            line = "stopped before training began; the same command begins it"
        elif position.evaluated and (position.stopped or position.step >= schedule.end):
            line = f"stopped before the test score; the same command gives it, from {self.workdir}"
        else:
            line = (
                f"stopped after step {position.step:,} of {schedule.end:,} (epochs finished: {position.epoch} of "
                f"{schedule.epochs}), which is saved; the same command goes on from there, in {self.workdir}"
            )
        raise Stopped(line if jax.process_index() == 0 else "")

    def _tell_of_nonfinite(self, state: TrainState, latest: dict[str, float]) -> None:
        steps_per_epoch = self.schedule.steps_per_epoch
        told = nonfinite.describe(
            self.graph, self._whole(state), latest, batch_size=self.batch_size, steps_per_epoch=steps_per_epoch
        )
        path = nonfinite.write(self.workdir, told) if jax.process_index() == 0 else self.workdir / nonfinite.FILE_NAME
        self.saves.checkpoints.wait()
        raise FloatingPointError(
            f"step {told['step']} (epoch {told['epoch']}): the loss or its gradient is not finite; {path} holds its "
            "triples and norms; checkpoints are of steps before it; lower train.learning_rate or "
            "train.table_learning_rate, in another --workdir"
        )
