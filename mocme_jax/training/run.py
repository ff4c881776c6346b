"""Trains, evaluates, keeps checkpoints, and scores the best model on test once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from mocme_jax import __version__
from mocme_jax.errors import UserError
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.parallel.mapping import WHOLE, Mapper
from mocme_jax.training import setup
from mocme_jax.training.checkpoints import Checkpoints, open_checkpoints
from mocme_jax.training.compilation import use_compilation_cache
from mocme_jax.training.metrics_log import MetricsLog
from mocme_jax.training.progress import Progress, make_console
from mocme_jax.training.results import (
    print_results,
    restore_placed,
    results_of,
    weight_names,
    write_results,
)
from mocme_jax.training.state import TrainState

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# Fields that may differ when a run goes on: they change how long or where it runs, not what it computes.
_FREE_FIELDS = ("train.epochs", "train.patience", "eval.", "parallel.", "data.dir", "data.features_dir")


@dataclasses.dataclass
class Position:
    """Where a run is, beside its arrays; saved with every checkpoint as JSON.

    Attributes:
      epoch: epochs finished.
      best_epoch, best_mrr: the best evaluation on dev so far.
      stale: evaluations since then.
      minutes: time spent so far, in training and evaluation.
      stopped: whether early stopping ended the run.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_mrr: float = -1.0
    stale: int = 0
    minutes: float = 0.0
    stopped: bool = False


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict:
    """Trains the configured model in ``workdir`` and returns what it wrote to ``results.json``.

    Raises:
      UserError: bad data, or a workdir that holds a run of another graph or configuration.
      FloatingPointError: the loss or a score is not finite.
    """
    began = time.perf_counter()
    writes = jax.process_index() == 0
    console = make_console(quiet=not writes)
    mapper = setup.build_mapper(config)
    dataset = setup.load_dataset(config, notify=console.print)
    graph = dataset.graph
    model = setup.build_model(config, graph)
    use_compilation_cache()
    console.print(_headline(config, dataset, model, mapper, workdir), soft_wrap=True)
    for line in dataset.warnings:
        console.print(f"warning: {line}", soft_wrap=True)

    training = setup.build_training(config, model, graph, mapper)
    encode = setup.build_encode(config, model, graph, mapper)
    evaluator = setup.build_evaluator(config, model, dataset, mapper)

    with open_checkpoints(workdir) as checkpoints:
        identity = {"config": config.to_dict(), "fingerprint": dataset.fingerprint, "version": __version__}
        # The order of resuming:
        # 1. A newest checkpoint is there: it must be of this graph and configuration, or nothing is touched.
        # 2. Its arrays become the state, and its JSON the position: epoch, best result, patience.
        # 3. Rows of metrics.jsonl after that epoch are dropped; they will be written again.
        # 4. A run that had ended goes straight to the test score of its best checkpoint.
        position = _restored_position(checkpoints, identity, workdir)
        entities, plan = len(graph.entities), training.plan
        if position.epoch:
            state = restore_placed(checkpoints, "last", plan.shapes, plan.spec, mapper, entities)
            console.print(f"going on after epoch {position.epoch}, from {workdir}")
        else:
            state = plan.create()
        loop = _Loop(config, graph, training, encode, evaluator, checkpoints, identity, position, began)
        with MetricsLog(workdir, keep_until_epoch=position.epoch, writes=writes) as log:
            try:
                with Progress(config.train.epochs, console=console) as progress:
                    loop.run(state, log, progress)
                checkpoints.wait()
                params = restore_placed(checkpoints, "best", plan.shapes.params, plan.spec.params, mapper, entities)
                vectors, weights = encode(params, training.inputs)
                results = results_of(
                    identity["config"],
                    dataset,
                    dataclasses.asdict(position),
                    dev=evaluator.report(params.model, vectors, "valid"),
                    test=evaluator.report(params.model, vectors, "test") if len(graph.test) else None,
                    weights=weight_names(graph, weights),
                )
            except KeyboardInterrupt:
                checkpoints.wait()
                console.print(loop.how_to_go_on(workdir), soft_wrap=True)
                raise
            log.write({"test": results["test"]["overall"] if results["test"] else None})
    if writes:
        write_results(workdir, results)
    print_results(results, console)
    console.print(f"results: {Path(workdir) / 'results.json'}   checkpoint: {Path(workdir) / 'best'}", soft_wrap=True)
    return results


@dataclasses.dataclass
class _Loop:
    """Epochs of training with evaluations between them."""

    config: ConfigDict
    graph: Any
    training: setup.Training
    encode: Callable
    evaluator: Evaluator
    checkpoints: Checkpoints
    identity: dict
    position: Position
    began: float

    def __post_init__(self):
        self.steps = -(-len(self.graph.train) // self.config.train.batch_size)
        self.saved_epoch = self.position.epoch

    def run(self, state: TrainState, log: MetricsLog, progress: Progress) -> None:
        """Runs to the last epoch or until dev stops getting better."""
        settings, position, mapper = self.config.train, self.position, self.training.mapper
        fresh, first_call = position.epoch == 0, True
        since, sums, steps_since, timed_steps, seconds = time.perf_counter(), {}, 0, 0, 0.0
        while position.epoch < settings.epochs and not position.stopped:
            done = 0
            # One step on its own first: it tells how long compilation took, and that training is under way.
            for steps in [1, self.steps - 1] if fresh and self.steps > 1 else [self.steps]:
                start = time.perf_counter()
                count = mapper.place(np.int32(steps), WHOLE)
                state, metrics = self.training.program(state, self.training.data, count)
                metrics = {name: float(value) for name, value in metrics.items()}
                if fresh and not done:
                    progress.note(f"first step done {time.perf_counter() - self.began:.1f} s after the start")
                if not first_call:
                    # The first call compiles; its time says nothing of the rate.
                    seconds += time.perf_counter() - start
                    timed_steps += steps
                first_call = False
                sums = {name: sums.get(name, 0.0) + steps * value for name, value in metrics.items()}
                steps_since += steps
                done += steps
                if not np.isfinite(metrics["loss/total"]) or not np.isfinite(metrics["norm/gradient"]):
                    raise FloatingPointError(
                        f"epoch {position.epoch + 1}: the loss or its gradient is not finite; "
                        "lower train.learning_rate or train.table_learning_rate"
                    )
                progress.update(position.epoch + 1, done, self.steps)
            fresh = False
            position.epoch += 1
            if position.epoch % settings.eval_every and position.epoch < settings.epochs:
                continue
            means = {name: value / steps_since for name, value in sums.items()}
            rate = timed_steps * settings.batch_size / seconds if timed_steps else None
            # As arrays of all processes, split ones as one table: for checkpoints, and for a norm over all of them.
            whole = mapper.whole_tables(state, self.training.plan.spec)
            dev = self._evaluate(state, whole, means, rate, log)
            position.minutes += (time.perf_counter() - since) / 60
            self._save(whole, dev["mrr"])
            shown = {"loss": means.get("loss/total"), "dev MRR": dev["mrr"], "triples/s": rate}
            progress.update(position.epoch, done, self.steps, shown)
            since, sums, steps_since, timed_steps, seconds = time.perf_counter(), {}, 0, 0, 0.0
        if position.stopped:
            progress.note(f"dev has not got better for {position.stale} evaluations: stopped at epoch {position.epoch}")

    def how_to_go_on(self, workdir: Path) -> str:
        """What to tell someone who interrupted the run."""
        if not self.saved_epoch:
            return "stopped before the first checkpoint; the same command begins anew"
        if self.position.stopped or self.saved_epoch >= self.config.train.epochs:
            return f"stopped before the test score; the same command gives it, from {workdir}"
        return f"stopped; the same command goes on after epoch {self.saved_epoch}, from {workdir}"

    def _evaluate(self, state: TrainState, whole: TrainState, means: dict, rate: float | None, log: MetricsLog) -> dict:
        start = time.perf_counter()
        vectors, weights = self.encode(state.evaluated, self.training.inputs)
        dev = self.evaluator.metrics(state.evaluated.model, vectors, "valid")
        seconds = time.perf_counter() - start
        log.write(
            {
                "epoch": self.position.epoch,
                "step": int(state.step),
                "train": means | {"norm/parameters": float(optax.tree.norm(whole.params))},
                "dev": dev,
                "weights": weight_names(self.graph, weights),
                "speed": {"triples/s": rate, "evaluation seconds": seconds, "queries/s": dev["count"] / seconds},
            }
        )
        return dev

    def _save(self, whole: TrainState, mrr: float) -> None:
        position = self.position
        if mrr > position.best_mrr:
            position.best_epoch, position.best_mrr, position.stale = position.epoch, mrr, 0
        else:
            position.stale += 1
        patience = self.config.train.patience
        position.stopped = bool(patience) and position.stale >= patience
        meta = self.identity | {"position": dataclasses.asdict(position)}
        # Best first: a kill between the two saves then repeats an evaluation, and loses none.
        if position.best_epoch == position.epoch:
            self.checkpoints.save_best(position.epoch, whole.evaluated, meta)
        self.checkpoints.save_last(position.epoch, whole, meta)
        self.saved_epoch = position.epoch


def _restored_position(checkpoints: Checkpoints, identity: dict, workdir: Path) -> Position:
    if checkpoints.latest_step("last") is None:
        return Position()
    saved = checkpoints.read_meta("last")
    if saved["fingerprint"] != identity["fingerprint"]:
        raise UserError(
            f"{workdir}: holds a run on another graph or other features; name another folder with --workdir=DIR"
        )
    changed = [
        path
        for path, value in _flat(identity["config"]).items()
        if not path.startswith(_FREE_FIELDS) and _flat(saved["config"]).get(path) != value
    ]
    if changed:
        raise UserError(
            f"{workdir}: holds a run whose config differs in {', '.join(changed)}; "
            "set them back, or name another folder with --workdir=DIR"
        )
    position = Position(**saved["position"])
    # A run that is asked for more patience than it stopped with goes on.
    position.stopped = position.stopped and position.stale >= (identity["config"]["train"]["patience"] or np.inf)
    return position


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted path, tuples as JSON gives them back."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _headline(config: ConfigDict, dataset: setup.Dataset, model: Any, mapper: Mapper, workdir: Path) -> str:
    graph, devices = dataset.graph, mapper.count
    names = " + ".join(["structure", *(f"{m.name} {m.coverage:.0%}" for m in graph.modalities)])
    kind = jax.local_devices()[0].device_kind
    return (
        f"{graph.name}: {len(graph.entities):,} entities, {len(graph.relations)} relations, "
        f"{len(graph.train):,} / {len(graph.valid):,} / {len(graph.test):,} triples to train / choose on dev / test\n"
        f"modalities: {names}; dev: {dataset.dev}\n"
        f"model: {model.score}, width {config.model.width}, {config.model.experts} experts a modality; "
        f"{devices} device{'s' if devices > 1 else ''} ({kind}); workdir: {workdir}"
    )
