"""The function ``train_and_evaluate``: training with checkpoints, and one evaluation of the best model on test."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from ml_collections import ConfigDict

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.parallel.mesh import Mapper
from mocme_jax.parallel.processes import everyone
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.run_folder import locked, write_json, write_whole
from mocme_jax.training.jax_start import prepare_jax
from mocme_jax.training.logs import nonfinite
from mocme_jax.training.logs.metrics_log import MetricsLog
from mocme_jax.training.logs.progress import Progress, make_console
from mocme_jax.training.logs.run_results import print_results, results_of
from mocme_jax.training.logs.trackers import Tracker
from mocme_jax.training.loop import Loop
from mocme_jax.training.preemption import Preemption
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of, warning_of_memory, with_batch_that_fits
from mocme_jax.training.train_state import TrainState


def train_and_evaluate(
    config: ConfigDict,
    workdir: Path,
    preemption: Preemption | None = None,
    *,
    graph: KnowledgeGraph | None = None,
    trackers: Sequence[Tracker] = (),
    start: Mapping[str, Any] | None = None,
) -> dict:
    """Train the configured model in a folder, or resume there, and return the content of ``results.json``.

    Args:
      config: the config.
      workdir: the folder of the run.
      preemption: handles signals, and is entered here; None to leave signals alone.
      graph: the graph to train on instead of the one that the config names.
      trackers: receive the row of each evaluation, in addition to TensorBoard. The caller closes them.
      start: initial vectors, see ``make_start``.

    Raises:
      UserError: the data are invalid, or the folder cannot be written, holds another run, or is in use by another
        process.
      FloatingPointError: the loss or a score is not finite.
      Stopped: a signal has ended the run. Its state is saved.
    """
    prepare_jax()
    began = time.perf_counter()
    preemption = preemption or Preemption()
    mapper = builders.build_mapper(config)
    writes = jax.process_index() == 0
    console = make_console(quiet=not writes)
    note = console.print
    dataset = builders.load_dataset(config, note, graph)
    graph = dataset.graph
    note(_headline(config, dataset, mapper, workdir))
    for line in dataset.warnings:
        note(f"warning: {line}")
    config = with_batch_that_fits(config, len(graph.train), mapper.count, note)
    if much := warning_of_memory(config, len(graph.entities), mapper.count):
        note(f"warning: {much}")
    loop = Loop(config, dataset, mapper, [settings_of(config).seed], preemption, began, start)
    scorer, schedule = loop.scorer, loop.schedule

    def diverged(error: FloatingPointError, state: TrainState, latest: dict) -> NoReturn:
        path = workdir / nonfinite.FILE_NAME
        if not latest:
            raise error
        sizes = dict(batch_size=loop.training.batch_size, steps_per_epoch=schedule.steps_per_epoch)
        told = nonfinite.describe(graph, loop.whole(state), latest, **sizes)
        if writes:
            nonfinite.write(path, told)
        checkpoints.wait()
        raise FloatingPointError(
            f"{error}; {path} contains the triples and norms of this step; checkpoints are from earlier "
            "steps; lower train.learning_rate or train.table_learning_rate and use another --workdir"
        )

    # From here on, the loop handles signals, because it knows the position of the run.
    preemption.something_to_save()
    with _held(workdir, writes, settings_of(config).lock), open_checkpoints(workdir) as checkpoints:
        state = loop.resume(checkpoints, workdir, note)
        for name, content in [addition.file() for addition in loop.additions if writes]:
            write_whole(workdir / name, content)
        with MetricsLog(workdir, keep_until_step=loop.position.evaluated_step, trackers=trackers, writes=writes) as log:
            with Progress(schedule.epochs, console=console) as progress:
                loop.run(state, log, progress, diverged)
                checkpoints.wait()
                preemption.nothing_to_save(
                    f"stopped before the test score; rerun the same command to get it from {workdir}"
                )
                progress.evaluating(loop.position.epoch, "dev and test")
                params = loop.best(0)
                if params is None:
                    raise UserError(
                        f"{workdir}: no epoch was evaluated up to the last one, {schedule.epochs}; raise train.epochs"
                    )
                fitted = scorer.fit(params)
                results = results_of(
                    loop.identity["config"],
                    dataset,
                    dataclasses.asdict(loop.position),
                    dev=scorer.evaluator.report(scorer.dev_ranks(fitted), "valid"),
                    test=scorer.evaluator.report(scorer.test_ranks(fitted), "test") if len(graph.test) else None,
                    weights=loop.shares(fitted),
                )
            # From here on, results are written even if a signal arrives.
            preemption.something_to_save()
            log.write({"test": results["test"]["overall"] if results["test"] else None})
        if writes:
            write_json(workdir / "results.json", results)
    print_results(results, console)
    note(f"results: {workdir / 'results.json'}   checkpoint: {workdir / 'best'}")
    return results


@contextlib.contextmanager
def _held(workdir: Path, writes: bool, lock: bool):
    """Hold the lock of the folder, which the writing process takes for all processes."""
    with contextlib.ExitStack() as stack:
        refused = None
        if writes:
            try:
                stack.enter_context(locked(workdir, lock))
            except UserError as error:
                refused = error
        if everyone([refused is not None]).any():
            raise refused or UserError(f"{workdir}: process 0 cannot train there; see its error")
        yield


def _headline(config: ConfigDict, dataset: builders.Dataset, mapper: Mapper, workdir: Path) -> str:
    graph, devices, model = dataset.graph, mapper.count, settings_of(config)
    names = " + ".join(["structure", *(f"{m.name} {m.coverage:.0%}" for m in graph.modalities)])
    kind = jax.local_devices()[0].device_kind
    return (
        f"{graph.name}: {len(graph.entities):,} entities, {len(graph.relations)} relations, "
        f"{len(graph.train):,} train, {len(graph.valid):,} dev and {len(graph.test):,} test triples\n"
        f"modalities: {names}; dev: {dataset.dev}\n"
        f"model: {model.score}, experts of width {model.width} each; "
        f"{devices} device{'s' if devices > 1 else ''} ({kind}); workdir: {workdir}"
    )
