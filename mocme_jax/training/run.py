"""Trains, evaluates, keeps checkpoints, and scores the best model on test once."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mocme_jax.errors import UserError
from mocme_jax.parallel.mesh import Mapper
from mocme_jax.parallel.processes import everyone
from mocme_jax.training import setup
from mocme_jax.training.checkpoints.lenders_file import write_lenders
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.resuming import resume
from mocme_jax.training.checkpoints.run_folder import locked
from mocme_jax.training.checkpoints.run_position import Position, identity_of
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.compilation_cache import use_compilation_cache
from mocme_jax.training.logs.metrics_log import MetricsLog
from mocme_jax.training.logs.progress import Progress, make_console
from mocme_jax.training.logs.run_results import print_results, results_of, weight_names, write_results
from mocme_jax.training.loop import Loop
from mocme_jax.training.preemption import Preemption
from mocme_jax.training.schedule import Schedule

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def train_and_evaluate(config: ConfigDict, workdir: Path, preemption: Preemption | None = None) -> dict:
    """Trains the configured model in ``workdir`` and returns what it wrote to ``results.json``.

    Args:
      config: every choice.
      workdir: the run's folder; a run that is there goes on.
      preemption: entered, takes signals; None leaves them alone.

    Raises:
      UserError: bad data, a workdir that can't be written, holds another run, or in which another process trains.
      FloatingPointError: the loss or a score is not finite.
      Stopped: a signal has ended the run in good order.
    """
    began = time.perf_counter()
    preemption = preemption or Preemption()
    writes = jax.process_index() == 0
    console = make_console(quiet=not writes)

    def note(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    mapper = setup.build_mapper(config)
    dataset = setup.load_dataset(config, notify=console.print)
    graph, settings = dataset.graph, config.train
    model = setup.build_model(config, graph)
    use_compilation_cache()
    note(_headline(config, dataset, model, mapper, workdir))
    for line in dataset.warnings:
        note(f"warning: {line}")

    training = setup.build_training(config, model, graph, mapper)
    plan = training.plan
    lenders = setup.lenders_of(config, graph)
    encode = setup.build_encode(config, model, graph, mapper, lenders)
    evaluator = setup.build_evaluator(config, model, dataset, mapper)
    schedule = Schedule(
        steps_per_epoch=-(-len(graph.train) // settings.batch_size),
        epochs=settings.epochs,
        eval_every=settings.eval_every,
        patience=settings.patience,
        save_minutes=settings.save_minutes,
    )
    panel = np.asarray(jax.device_get(training.inputs.panel))
    identity = identity_of(config.to_dict(), dataset.parts, dataset.fingerprint, panel)

    # From here on the loop answers a signal, which knows where the run is.
    preemption.something_to_save()
    with _held(workdir, writes), open_checkpoints(workdir) as checkpoints:
        saves = Saves(checkpoints, identity, len(graph.entities), note)
        state, position = resume(saves, identity, plan, mapper, workdir, note)
        if writes and lenders is not None:
            write_lenders(workdir, lenders)
        # A run that is asked for more patience than it stopped with goes on.
        position.stopped = position.stopped and position.stale >= (schedule.patience or np.inf)
        evaluated = position.step - (not position.evaluated)
        with MetricsLog(workdir, keep_until_step=evaluated, writes=writes) as log:
            with Progress(schedule.epochs, console=console) as progress:
                Loop(
                    workdir=workdir,
                    graph=graph,
                    batch_size=settings.batch_size,
                    schedule=schedule,
                    training=training,
                    encode=encode,
                    evaluator=evaluator,
                    saves=saves,
                    position=position,
                    preemption=preemption,
                    log=log,
                    progress=progress,
                    began=began,
                ).run(state)
            checkpoints.wait()
            preemption.nothing_to_save(f"stopped before the test score; the same command gives it, from {workdir}")
            best = saves.newest("best", plan.shapes.params)
            if best is None:
                raise UserError(
                    f"{workdir}: nothing was evaluated up to epoch {schedule.epochs}, the last; raise train.epochs"
                )
            position.take_best(Position(**best.meta["position"]))
            params = mapper.place(best.arrays, plan.spec.params)
            vectors, weights = encode(params, training.inputs)
            results = results_of(
                identity["config"],
                dataset,
                dataclasses.asdict(position),
                dev=evaluator.report(params.model, vectors, "valid"),
                test=evaluator.report(params.model, vectors, "test") if len(graph.test) else None,
                weights=weight_names(graph, weights),
            )
            # What is known is written, whatever comes.
            preemption.something_to_save()
            log.write({"test": results["test"]["overall"] if results["test"] else None})
        if writes:
            write_results(workdir, results)
    print_results(results, console)
    note(f"results: {Path(workdir) / 'results.json'}   checkpoint: {Path(workdir) / 'best'}")
    return results


@contextlib.contextmanager
def _held(workdir: Path, writes: bool):
    """The lock of the folder, which the process that writes holds for all."""
    with contextlib.ExitStack() as stack:
        refused = None
        if writes:
            try:
                stack.enter_context(locked(workdir))
            except UserError as error:
                refused = error
        if everyone([refused is not None]).any():
            raise refused or UserError(f"{workdir}: process 0 can't train there, and says why")
        yield


def _headline(config: ConfigDict, dataset: setup.Dataset, model: Any, mapper: Mapper, workdir: Path) -> str:
    graph, devices = dataset.graph, mapper.count
    names = " + ".join(["structure", *(f"{m.name} {m.coverage:.0%}" for m in graph.modalities)])
    kind = jax.local_devices()[0].device_kind
    return (
        f"{graph.name}: {len(graph.entities):,} entities, {len(graph.relations)} relations, "
        f"{len(graph.train):,} / {len(graph.valid):,} / {len(graph.test):,} triples to train / choose on dev / test\n"
        f"modalities: {names}; dev: {dataset.dev}\n"
        f"model: {model.score.name}, width {config.model.width}, {config.model.experts} experts a modality; "
        f"{devices} device{'s' if devices > 1 else ''} ({kind}); workdir: {workdir}"
    )
