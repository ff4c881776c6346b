"""The training loop: calls of the training program, with evaluations and saves between them."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from mocme_jax.errors import enough_memory
from mocme_jax.evaluation.metrics import ranking_metrics
from mocme_jax.method.mocme import Params
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.parallel.processes import everyone
from mocme_jax.training.checkpoints.orbax_store import Checkpoints
from mocme_jax.training.checkpoints.run_position import Position, furthest, identity_of
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.lanes import OneLane, StackedLanes
from mocme_jax.training.logs.metrics_log import MetricsLog
from mocme_jax.training.logs.progress import Progress
from mocme_jax.training.logs.run_results import weight_names
from mocme_jax.training.preemption import Preemption, Stopped
from mocme_jax.training.schedule import Pace
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import cure_of_memory, schedule_of, whole_places
from mocme_jax.training.start_vectors import make_start
from mocme_jax.training.step import finite
from mocme_jax.training.train_state import TrainState
from mocme_jax.training.weight_fit import Fitted

# Compiled as one program; otherwise each operation would be compiled for each shape.
_norm = jax.jit(optax.tree.norm)


class Loop:
    """Trains seeds, each as a lane of one program, until the last epoch or until dev stops improving.

    A seed that diverges ends alone; the others continue.

    Args:
      config: the config of all seeds; its own seed is not used.
      dataset: the graph.
      mapper: the devices.
      seeds: one seed, or several that are trained together.
      preemption: whether a signal has requested a stop.
      began: the start of the command, by ``time.perf_counter``.
      start: initial vectors, see ``make_start``; None for random ones.

    Raises:
      UserError: the config does not fit the devices or the seeds. Nothing has been written.
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: builders.Dataset,
        mapper: Mapper,
        seeds: Sequence[int],
        preemption: Preemption,
        began: float | None = None,
        start: Mapping[str, Any] | None = None,
    ):
        graph = dataset.graph
        self.dataset, self.seeds, self._preemption = dataset, list(seeds), preemption
        self.model = builders.build_model(config, graph)
        vectors = None if start is None else make_start(start, graph, self.model)
        self.training = builders.build_training(config, self.model, graph, mapper, self.seeds, vectors)
        self.additions = builders.table_additions_of(config, graph)
        placed = self.training.inputs, self.additions, self.training.data.known
        self.scorer = builders.build_scorer(config, self.model, dataset, mapper, *placed)
        self.schedule = schedule_of(config, len(graph.train))
        parts = dataset.parts | ({} if vectors is None else vectors.parts())
        self.identity = identity_of(config.to_dict(), parts, dataset.fingerprint)
        self.identity["places"] = whole_places(config)
        self._cure = cure_of_memory(config, len(graph.entities))
        self._began = time.perf_counter() if began is None else began

    def resume(self, checkpoints: Checkpoints, folder: Path, notify: Callable[[str], None]) -> TrainState:
        """Return the state to continue from, and set ``positions``. The folder must hold this training or none.

        Args:
          checkpoints: the checkpoints of the folder.
          folder: the folder of the run.
          notify: called with one line if training resumes.

        Raises:
          UserError: the folder holds another training, or only corrupt checkpoints.
        """
        self.checkpoints, self.folder = checkpoints, folder
        lanes, entities = (OneLane, len(self.dataset.graph.entities)) if len(self.seeds) == 1 else (StackedLanes, None)
        self.lanes = lanes(self.training, Saves(checkpoints, self.identity, entities, notify), folder)
        with enough_memory("the parameters", "lower model.width, or use more devices with parallel.shard_entities"):
            state, self.positions = self.lanes.resume()
        # A run that stopped early resumes with a higher patience, unless another seed is ahead of it.
        patience, step = self.schedule.patience or np.inf, self.position.step
        for position in self.positions:
            position.stopped = position.stopped and (position.stale >= patience or position.step < step)
        # A resumed run has its position saved; a new one has nothing to save.
        self._saved = self.position.number
        if step:
            notify(f"resuming after step {step:,} (epoch {self.position.epoch} finished) from {folder}")
        return state

    @property
    def position(self) -> Position:
        """The position of the seed that has come furthest."""
        return furthest(self.positions)

    @property
    def going(self) -> list[int]:
        """The numbers of the seeds that have neither stopped nor diverged."""
        return [n for n, position in enumerate(self.positions) if not position.stopped and not position.diverged]

    def run(
        self,
        state: TrainState,
        log: MetricsLog,
        progress: Progress,
        diverged: Callable[[FloatingPointError, TrainState, dict], None] = lambda *_: None,
    ) -> None:
        """Train to the end; the log gets one row per evaluation.

        Args:
          state: the state from ``resume``, which is donated.
          log: the metrics log.
          progress: the progress display.
          diverged: called if a value of a seed is not finite, with an error that says which, the state, and the seed's
            last metrics. It may raise the error. Otherwise the seed ends with one printed line.

        Raises:
          Stopped: a signal requested it. The state is saved.
          UserError: a save or a row cannot be written.
        """
        schedule = self.schedule
        self._log, self._progress, self._diverged = log, progress, diverged
        self._pace, self._saved_at = Pace(), time.perf_counter()
        while True:
            position = self.position
            due = bool(self.going) and schedule.evaluates(position.step) and not position.evaluated
            ended = not self.going or (position.step >= schedule.end and not due)
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
                    self._save(self.whole(state))
                state = self._train(state, steps)

    def _agreed(self, limit: int) -> tuple[bool, bool, int]:
        """Decide whether to stop, whether to save, and how many steps to take: the same in every process.

        Any process may request a stop. Process 0 decides the rest.
        """
        late = time.perf_counter() - self._saved_at >= 60 * self.schedule.save_minutes
        votes = everyone([self._preemption.requested, late, self._pace.length(limit)])
        return bool(votes[:, 0].any()), bool(votes[0, 1]), int(votes[0, 2])

    def _train(self, state: TrainState, steps: int) -> TrainState:
        schedule, first = self.schedule, self.position.step == 0
        start = time.perf_counter()
        count = self.training.mapper.place(np.int32(steps), WHOLE)
        with enough_memory("a training step", self._cure):
            state, latest = self.training.program(state, self.training.data, count)
            latest = {name: np.atleast_1d(value) for name, value in jax.device_get(latest).items()}
        self._pace.took(steps, time.perf_counter() - start)
        for number in self.going:
            own, position = {name: value[number] for name, value in latest.items()}, self.positions[number]
            position.step = int(own.pop("step"))
            position.epoch, position.evaluated = position.step // schedule.steps_per_epoch, False
            if not finite(own):
                epoch = (position.step - 1) // schedule.steps_per_epoch + 1
                told = f"step {position.step} (epoch {epoch}): the loss or its gradient is not finite"
                self._end(number, FloatingPointError(told), state, own)
        if first:
            self._progress.note(f"first step done {time.perf_counter() - self._began:.1f} s after the start")
        epoch, done = divmod(self.position.step, schedule.steps_per_epoch)
        self._progress.update(epoch + 1, done, schedule.steps_per_epoch)
        return state

    def _evaluate(self, state: TrainState) -> TrainState:
        """Evaluate dev, write the rows, and save what improved; return the state with its sums reset."""
        schedule, epoch = self.schedule, self.position.epoch
        self._progress.evaluating(epoch)
        rate = self._pace.steps_a_second()
        rate = rate and rate * self.training.batch_size
        sums = jax.device_get(state.sums)
        state = state._replace(sums=self.training.mapper.place(jax.tree.map(np.zeros_like, sums), WHOLE))
        means = {name: np.atleast_1d(total) for name, total in sums.totals.items()}
        shown: dict[str, list[float]] = {"loss": [], "dev MRR": []}
        better: list[int] = []
        stopped: list[int] = []
        for number in self.going:
            position, start = self.positions[number], time.perf_counter()
            try:
                fitted = self.scorer.fit(self.lanes.of(state.evaluated, number))
                dev = ranking_metrics(self.scorer.dev_ranks(fitted))
                weights = self.shares(fitted)
            except FloatingPointError as error:
                self._end(number, error, state, {})
                continue
            state = self.lanes.with_fusion(state, fitted.params, number)
            whole = self.whole(state)
            seconds = time.perf_counter() - start
            train = {name: float(total[number]) / int(sums.steps) for name, total in means.items()}
            train["norm/parameters"] = float(_norm(self.lanes.of(whole.params, number)))
            row = {
                "epoch": epoch,
                "step": position.step,
                "train": train,
                "dev": dev,
                "weights": weights,
                "speed": {"triples/s": rate, "evaluation seconds": seconds, "queries/s": dev["count"] / seconds},
            }
            self._log.write(row if len(self.seeds) == 1 else {"seed": self.seeds[number]} | row)
            if position.judge(dev["mrr"], schedule.patience):
                better.append(number)
            if position.stopped:
                stopped.append(number)
            shown["loss"].append(train["loss/total"])
            shown["dev MRR"].append(dev["mrr"])
        if not shown["loss"]:
            return state
        if self.lanes.improved(whole, better):
            self._save(whole)
        steps = schedule.steps_per_epoch
        self._progress.update(epoch, steps, steps, shown | {"triples/s": rate})
        for number in stopped:
            stale = self.positions[number].stale
            self._tell(number, f"dev has not improved for {stale} evaluations: stopped at epoch {epoch}")
        return state

    def shares(self, fitted: Fitted) -> dict[str, float]:
        """Return each expert's share of the weights, by its name."""
        return weight_names(self.dataset.graph, self.scorer.shares(fitted))

    def best(self, number: int) -> Params | None:
        """Return the best parameters of a seed; None if it was never evaluated."""
        return self.lanes.best(self.positions[number], number)

    def whole(self, state: TrainState) -> TrainState:
        """Return the state as arrays of all processes with sharded tables as one, for checkpoints and for norms."""
        return self.training.mapper.whole_tables(state, self.training.plan.spec)

    def _tell(self, number: int, line: str) -> None:
        self._progress.note(line if len(self.seeds) == 1 else f"seed {self.seeds[number]}: {line}")

    def _end(self, number: int, error: FloatingPointError, state: TrainState, latest: dict) -> None:
        position = self.positions[number]
        position.diverged = position.step
        self._diverged(error, state, latest)
        counts = f"its best epoch, {position.best_epoch}, counts" if position.best_step else "it counts as failed"
        self._tell(number, f"{error}; {counts}")

    def _save(self, whole: TrainState) -> None:
        now = time.perf_counter()
        self.position.minutes += (now - self._saved_at) / 60
        self._saved_at = now
        try:
            self.lanes.save(whole, self.positions)
        except FloatingPointError as error:
            # Several seeds may be saved with values that are not finite, so this is a run of one seed.
            self._end(0, error, whole, {})
        self._saved = self.position.number

    def _stop(self, state: TrainState) -> None:
        position, schedule = self.position, self.schedule
        if position.number != self._saved:
            self._save(self.whole(state))
        self.checkpoints.wait()
        if not position.step:
            line = "stopped before training began; rerun the same command to start it"
        elif position.evaluated and (not self.going or position.step >= schedule.end):
            line = f"stopped before the test score; rerun the same command to get it from {self.folder}"
        else:
            line = (
                f"stopped after step {position.step:,} of {schedule.end:,} (epochs finished: {position.epoch} of "
                f"{schedule.epochs}), which is saved; rerun the same command to resume in {self.folder}"
            )
        raise Stopped(line if jax.process_index() == 0 else "")
