"""Several seeds of one configuration, trained as lanes of one compiled program (``jax.vmap``).

Each lane does what its seed would do alone: its own initial values, order of triples, candidates and panel, its own
best epoch and its own early stop. They share the graph and its dev split, so that their scores can be paired.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.errors import UserError
from mocme_jax.method.encoder import choose_panel
from mocme_jax.parallel.mesh import WHOLE
from mocme_jax.training import setup
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.run_position import Position, check_same_run, identity_of
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.device_data import make_inputs, make_train_data
from mocme_jax.training.logs.run_results import weight_names
from mocme_jax.training.preemption import Preemption, Stopped
from mocme_jax.training.schedule import Pace, Schedule, Timer
from mocme_jax.training.train_state import TrainData, TrainState, stack_states

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# A name that no array of a state has: lanes stand before the rows of tables, which are whole here.
_NO_TABLE = 2**31 - 1


class Trained(NamedTuple):
    """What became of one seed.

    Attributes:
      row: what was measured, for JSON: ``seed``, ``dev``, ``test`` and ``clean`` metrics, ``best_epoch``, ``epochs``
        (trained until it stopped), ``curve`` of dev MRR, ``weights``.
      ranks: float64 ``[2T]`` of the test triples, tails first; None where test was not looked at.
    """

    row: dict
    ranks: np.ndarray | None


class Arrays(NamedTuple):
    """What a checkpoint holds: the lanes' state, and each one's best parameters so far."""

    state: TrainState
    best: Any


@dataclasses.dataclass
class Lane:
    """Where a seed is.

    Attributes:
      position: its own best epoch, and whether it has stopped; steps are those of all.
      curve: ``[epoch, dev MRR]`` of each evaluation until it stopped.
    """

    position: Position
    curve: list[list[float]]


@dataclasses.dataclass
class Lanes:
    """The training of several seeds, which can be stopped and goes on.

    Attributes:
      config: every choice but the seed.
      dataset: what all seeds are trained on.
      seeds: S of them.
      folder: holds the state while training is under way.
      preemption: whether a signal has asked for the end.
      notify: takes a line an evaluation.
    """

    config: ConfigDict
    dataset: setup.Dataset
    seeds: Sequence[int]
    folder: Path
    preemption: Preemption
    notify: Callable[[str], None]

    def __post_init__(self):
        config, graph = self.config, self.dataset.graph
        if config.parallel.shard_entities:
            raise UserError("several seeds at once want whole tables; set parallel.shard_entities to False")
        self.mapper = setup.build_mapper(config)
        self.model = setup.build_model(config, graph)
        sizes = dict(entities=len(graph.entities), triples=len(graph.train))
        self._plan, self._program = setup.build_program(config, self.model, self.mapper, **sizes, seeds=True)
        inputs = make_inputs(graph, config.fusion.panel, config.seed, self.mapper)
        present = np.asarray(jax.device_get(inputs.present))
        self._panels = np.stack([choose_panel(present, config.fusion.panel, seed) for seed in self.seeds])
        loops = setup.loops_of(config, graph)
        data = make_train_data(graph, inputs._replace(panel=self._panels), self.mapper, loops=loops)
        self._data: TrainData = self.mapper.place(data, WHOLE)
        self._encode = setup.build_encode(config, self.model, graph, self.mapper, setup.lenders_of(config, graph))
        self._evaluator = setup.build_evaluator(config, self.model, self.dataset, self.mapper)
        settings = config.train
        self._schedule = Schedule(
            steps_per_epoch=-(-len(graph.train) // settings.batch_size),
            epochs=settings.epochs,
            eval_every=settings.eval_every,
            patience=settings.patience,
            save_minutes=settings.save_minutes,
        )
        identity = identity_of(config.to_dict(), self.dataset.parts, self.dataset.fingerprint, self._panels)
        self._identity = identity | {"seeds": list(self.seeds)}
        self._keep = jax.jit(_keep_lane, donate_argnums=0)

    def run(self, *, test: bool = True) -> list[Trained]:
        """Trains to the last epoch, or until every seed has stopped; then scores each seed's best parameters.

        Args:
          test: whether test is scored; a search does without.

        Raises:
          Stopped: a signal has asked for the end, and the state is on the disk.
          FloatingPointError: a loss is not finite.
          UserError: the folder can't be written, or holds something else.
        """
        with contextlib.closing(open_checkpoints(self.folder)) as checkpoints:
            arrays, lanes, step = self._begin(checkpoints)
            arrays = self._train(checkpoints, arrays, lanes, step)
        return [self._score(arrays.best, number, lane, test) for number, lane in enumerate(lanes)]

    def _begin(self, checkpoints) -> tuple[Arrays, list[Lane], int]:
        first = stack_states(jax.jit(jax.vmap(self._plan.initial))(jnp.asarray(self.seeds, jnp.int32)))
        state = self.mapper.place(first, WHOLE)
        arrays = Arrays(state, jax.tree.map(jnp.copy, state.evaluated))
        saves = Saves(checkpoints, None, _NO_TABLE, self.notify)
        saved = saves.newest(
            "last", arrays, accept=lambda meta: check_same_run(self.folder, meta, self._identity), needed=False
        )
        if saved is None or saved.meta["seeds"] != self._identity["seeds"]:
            return arrays, [Lane(Position(), []) for _ in self.seeds], 0
        self.notify(f"going on after step {saved.meta['position']['step']:,}")
        lanes = [Lane(Position(**lane["position"]), lane["curve"]) for lane in saved.meta["lanes"]]
        return self.mapper.place(saved.arrays, WHOLE), lanes, saved.meta["position"]["step"]

    def _train(self, checkpoints, arrays: Arrays, lanes: list[Lane], step: int) -> Arrays:
        schedule, pace, saved = self._schedule, Pace(), Timer()

        def save(step: int, evaluated: bool) -> None:
            own = [dataclasses.asdict(lane) for lane in lanes]
            saves = Saves(checkpoints, self._identity | {"lanes": own}, _NO_TABLE, self.notify)
            saves.save("last", Position(step=step, evaluated=evaluated), arrays)
            saved.again()

        while step < schedule.end and not all(lane.position.stopped for lane in lanes):
            evaluated = False
            steps = pace.length(schedule.next_evaluation(step + 1) - step)
            start = time.perf_counter()
            state, latest = self._program(arrays.state, self._data, self.mapper.place(np.int32(steps), WHOLE))
            taken, latest = jax.device_get((state.step, latest))
            pace.took(steps, time.perf_counter() - start)
            arrays = arrays._replace(state=state)
            if not np.isfinite([latest["loss/total"], latest["norm/gradient"]]).all():
                raise FloatingPointError(f"step {int(taken)}: the loss of a seed or its gradient is not finite")
            step = int(taken)
            if schedule.evaluates(step):
                arrays, evaluated = self._evaluate(arrays, lanes, step), True
            if self.preemption.requested:
                save(step, evaluated)
                checkpoints.wait()
                raise Stopped(f"stopped after step {step:,} of {schedule.end:,}; the same command goes on from there")
            if saved.seconds >= 60 * schedule.save_minutes:
                save(step, evaluated)
        return arrays

    def _evaluate(self, arrays: Arrays, lanes: list[Lane], step: int) -> Arrays:
        """Dev scores of the seeds that have not stopped, and the best parameters of those that got better."""
        epoch, shown = step // self._schedule.steps_per_epoch, []
        for number, lane in enumerate(lanes):
            if lane.position.stopped:
                continue
            vectors, params, _ = self._encoded(arrays.state.evaluated, number)
            mrr = self._evaluator.metrics(params.model, vectors, "valid")["mrr"]
            lane.curve.append([epoch, mrr])
            position = lane.position
            position.step, position.epoch, position.evaluated = step, epoch, True
            if mrr > position.best_mrr:
                position.best_epoch, position.best_step, position.best_mrr, position.stale = epoch, step, mrr, 0
                arrays = arrays._replace(best=self._keep(arrays.best, arrays.state.evaluated, np.int32(number)))
            else:
                position.stale += 1
            position.stopped = bool(self._schedule.patience) and position.stale >= self._schedule.patience
            shown.append(mrr)
        self.notify(f"epoch {epoch}/{self._schedule.epochs}  dev MRR {' '.join(f'{mrr:.4f}' for mrr in shown)}")
        return arrays

    def _encoded(self, params: Any, number: int):
        """One lane's vectors, parameters and weights."""
        own = jax.tree.map(lambda x: x[number], params)
        inputs = self._data.inputs._replace(panel=self._data.inputs.panel[number])
        vectors, weights = self._encode(own, self.mapper.place(inputs, WHOLE))
        return vectors, own, weights

    def _score(self, best: Any, number: int, lane: Lane, test: bool) -> Trained:
        vectors, params, weights = self._encoded(best, number)
        dev = self._evaluator.metrics(params.model, vectors, "valid")
        row = {"seed": self.seeds[number], "dev": dev}
        ranks = None
        if test:
            ranks, metrics = self._evaluator.scored(params.model, vectors, "test")
            row |= {"test": metrics["overall"], "clean": metrics["clean"]}
        row |= {
            "best_epoch": lane.position.best_epoch,
            "epochs": lane.position.epoch,
            "curve": lane.curve,
            "weights": weight_names(self.dataset.graph, weights),
        }
        return Trained(row, ranks)


def _keep_lane(best: Any, new: Any, number: jax.Array) -> Any:
    return jax.tree.map(lambda old, fresh: old.at[number].set(fresh[number]), best, new)
