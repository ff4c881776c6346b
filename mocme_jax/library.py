"""Training, search and ablation from Python: what the commands do, on a graph that is at hand."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme_jax.config import (
    STRUCTURE_ALONE,
    baseline_of,
    config_from_dict,
    load_config,
    path_of,
    set_field,
    validate,
)
from mocme_jax.config_values import check_value
from mocme_jax.data.graph.graph_writer import LAST_FILE
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.serving.frames import Rows

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from mocme_jax.serving.trained_model import TrainedModel
    from mocme_jax.training.logs.trackers import Tracker

GRAPH_FOLDER = "graph"


def fit(
    graph: KnowledgeGraph | str | os.PathLike,
    config: str | Mapping[str, Any] = "atlas",
    workdir: str | os.PathLike | None = None,
    *,
    trackers: Sequence[Tracker] = (),
    on_evaluation: Callable[[Mapping[str, float], int], Any] | None = None,
    start: Mapping[str, Any] | None = None,
    **fields: Any,
) -> TrainedModel:
    """Trains a model as ``python -m mocme_jax.train`` does, and returns it ready to answer.

    ``fit(graph, width=64, epochs=20)`` sets ``model.width`` and ``train.epochs``. The same graph, config and seed give
    the numbers of the command.

    Args:
      graph: a graph, or the folder of one.
      config: a bundled config by name, a file, or a config that ``default_config`` gave.
      workdir: a folder to keep the run in. After Ctrl-C the same call continues there, and ``load`` and the commands
        read it. A graph that was not read from a folder is written there too. None: a temporary folder, which is
        removed together with the model.
      trackers: take the numbers of each evaluation, and are closed when this ends, in whatever way; see
        ``mocme_jax.training.logs.trackers``.
      on_evaluation: called with the numbers of each evaluation by name, such as ``dev/mrr``, and the epoch.
      start: initial vectors of the structure expert: ``{"entities": array [N, d]}`` in the order of
        ``graph.entities``, and optionally ``"relations": array [R, d_r]``; or vectors by name, and random ones for the
        others. d is ``model.width``; d_r is the same, except for ``rotate`` (phases, d / 2) and ``tucker``.
      fields: config fields, by their last name, or with ``__`` for the dot, such as ``loss__kind="logistic"``.

    Raises:
      UserError: what the command says in its line ``error: ...``.
      FloatingPointError: the loss or a score is not finite.
      KeyboardInterrupt: Ctrl-C; what was trained is in ``workdir``.
    """
    from mocme_jax.serving.model_card import write_card
    from mocme_jax.serving.run_loading import load
    from mocme_jax.training.logs.trackers import Callback
    from mocme_jax.training.run import train_and_evaluate

    trackers = [*trackers, *([Callback(on_evaluation)] if on_evaluation else [])]
    with contextlib.ExitStack() as ended, contextlib.ExitStack() as undo:
        for tracker in trackers:
            ended.callback(tracker.close)
        graph = _graph(graph)
        kept = workdir is not None
        folder = Path(workdir if workdir is not None else undo.enter_context(_temporary()))
        chosen = _config(config, fields, graph, folder if kept else None)
        how = f"fit with workdir={str(folder)!r} continues" if kept else "with a workdir, fit could continue"
        with _interrupts(how) as interrupts:
            options = dict(graph=graph, trackers=trackers, start=start)
            write_card(folder, train_and_evaluate(chosen, folder, interrupts, **options))
        model = load(folder, graph=graph)
        if not kept:
            # The folder goes once nobody holds the model, or one that was made of it.
            weakref.finalize(model, undo.pop_all().close)
    return model


def ablate(
    graph: KnowledgeGraph | str | os.PathLike,
    study: str | Mapping[str, Mapping[str, Any]] = "components",
    seeds: int = 5,
    config: str | Mapping[str, Any] = "atlas",
    workdir: str | os.PathLike | None = None,
    *,
    cells: Sequence[str] = (),
    **fields: Any,
) -> Rows:
    """Runs a study as ``python -m mocme_jax.ablate`` does. Returns its table: one row for each cell.

    Args:
      graph, config, workdir, fields: see ``fit``; with a workdir finished cells are kept, and not run again.
      study: a bundled study by name, a file, or the cells themselves, such as ``{"full": {}, "no EGNS": {"weighting":
        "uniform"}}``. All are compared with the first.
      seeds: how many, trained together.
      cells: names of those to run beside the first; all, where none is named.
    """
    from mocme_jax.studies.study import run_study

    graph = _graph(graph)
    if not isinstance(study, str):
        study = {cell: {path_of(name): value for name, value in changes.items()} for cell, changes in study.items()}
    alone = baseline_of(config) if isinstance(config, str) else STRUCTURE_ALONE
    with contextlib.ExitStack() as undo:
        folder = Path(workdir if workdir is not None else undo.enter_context(_temporary()))
        chosen = _config(config, fields, graph, None)
        with _interrupts("ablate with the same workdir continues") as interrupts:
            options = dict(seeds=seeds, alone=alone, cells=cells, preemption=interrupts, graph=graph)
            table = run_study(chosen, study, folder, **options)
    return Rows({key: value for name, one in row.items() for key, value in _flat(name, one)} for row in table["rows"])


def search(
    graph: KnowledgeGraph | str | os.PathLike,
    space: str | Mapping[str, Any] = "full",
    trials: int = 20,
    config: str | Mapping[str, Any] = "atlas",
    workdir: str | os.PathLike | None = None,
    *,
    minutes: float = 120.0,
    sampler: str = "random",
    pruner: str = "none",
    **fields: Any,
) -> dict[str, Any]:
    """Searches a space as ``python -m mocme_jax.search`` does; returns the fields of the best point on dev.

    They are what ``fit`` takes: ``fit(graph, **search(graph, space))``.

    Args:
      graph, config, workdir, fields: see ``fit``; with a workdir what was tried is kept, and not tried again.
      space: a bundled space by name, a file, or the space itself: a list of values, ``Log(low, high)`` or
        ``Uniform(low, high)`` of ``mocme_jax.studies.search_space`` by field.
      trials: points; the first is the config itself.
      minutes: after which no further point is begun.
      sampler: ``"random"``; or ``"tpe"``, Optuna's TPE, which learns from the points so far after its first ten. It
        needs the extra ``search``.
      pruner: ``"none"``; or ``"median"``, which ends a point early if its best dev MRR is below the median of finished
        points at the same epoch. A pruned point is never the best.
    """
    from mocme_jax.studies import parameter_search
    from mocme_jax.studies.search_options import OPTIONS

    options = dict(trials=trials, minutes=minutes, sampler=sampler, pruner=pruner)
    options = {name: check_value(name, OPTIONS[name], value, "") for name, value in options.items()}
    graph = _graph(graph)
    if not isinstance(space, str):
        space = {path_of(name): choice for name, choice in space.items()}
    with contextlib.ExitStack() as undo:
        folder = Path(workdir if workdir is not None else undo.enter_context(_temporary()))
        chosen = _config(config, fields, graph, None)
        with _interrupts("search with the same workdir continues") as interrupts:
            best = parameter_search.search(chosen, space, folder, **options, preemption=interrupts, graph=graph)
    return {path.replace(".", "__"): value for path, value in best["changes"].items()}


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    """A mean with its deviation as two columns."""
    if not isinstance(value, Mapping):
        return [(name, value)]
    return [(name, value["mean"]), (f"{name}_deviation", value["deviation"])]


def _graph(graph: KnowledgeGraph | str | os.PathLike) -> KnowledgeGraph:
    return graph if isinstance(graph, KnowledgeGraph) else KnowledgeGraph.from_folder(graph)


def _config(
    config: str | Mapping[str, Any], fields: Mapping[str, Any], graph: KnowledgeGraph, folder: Path | None
) -> ConfigDict:
    """The config with its fields set, and with the place of the graph: its own, or in the run's folder if there is one.

    A graph that is in no folder is written there.
    """
    result = load_config(config)[0] if isinstance(config, str) else config_from_dict(dict(config))
    source = graph.source
    if source is None:
        source = {"data.name": graph.name, "data.make": ()}
        if folder is not None:
            source["data.dir"] = str(folder.absolute() / GRAPH_FOLDER)
            _keep(graph, folder / GRAPH_FOLDER)
    for path, value in source.items():
        set_field(result, path, value)
    for name, value in fields.items():
        path = path_of(name)
        set_field(result, path, tuple(value) if isinstance(value, list) else value)
    validate(result)
    return result


def _keep(graph: KnowledgeGraph, folder: Path) -> None:
    """Writes the graph, unless it is there: the file that is written last tells."""
    if not (folder / LAST_FILE).exists():
        graph.save(folder)
    elif KnowledgeGraph.from_folder(folder, make=()).fingerprints() != graph.fingerprints():
        raise UserError(f"{folder.parent}: holds a run on another graph; name another workdir")


@contextlib.contextmanager
def _temporary() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mocme_jax-", ignore_cleanup_errors=True) as folder:
        yield folder


@dataclasses.dataclass
class _Interrupts:
    """What the training asks about signals; here Ctrl-C, which must leave the caller's process alive."""

    requested: bool = False

    def something_to_save(self) -> None:
        """Nothing to do: a signal is a request at all times."""

    def nothing_to_save(self, line: str) -> None:
        """Ends the training if that was asked for."""
        from mocme_jax.training.preemption import Stopped

        if self.requested:
            raise Stopped(line)


@contextlib.contextmanager
def _interrupts(how: str) -> Iterator[_Interrupts]:
    """Takes Ctrl-C: the first ends the training in good order, a second one at once, both as KeyboardInterrupt."""
    from mocme_jax.training.preemption import Stopped

    interrupts = _Interrupts()

    def arrived(number: int, frame: Any) -> None:
        if interrupts.requested:
            raise KeyboardInterrupt
        interrupts.requested = True
        print("stopping after this step", flush=True)

    with contextlib.ExitStack() as undo:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, arrived)
            undo.callback(signal.signal, signal.SIGINT, before)
        try:
            yield interrupts
        except Stopped:
            raise KeyboardInterrupt(f"stopped; {how}") from None
