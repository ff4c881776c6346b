"""The functions ``fit``, ``ablate`` and ``search``: training, ablation and hyperparameter search from Python."""

from __future__ import annotations

import contextlib
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
    set_field,
    validate,
)
from mocme_jax.config_values import check_value, path_of
from mocme_jax.data.graph.graph_writer import LAST_FILE
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError, check_place
from mocme_jax.serving.answers import Rows

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from mocme_jax.serving.trained_model import TrainedModel
    from mocme_jax.training.logs.trackers import Tracker
    from mocme_jax.training.preemption import Preemption

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
    """Train a model and return it ready to answer queries, as ``python -m mocme_jax.train`` does.

    ``fit(graph, width=64, epochs=20)`` sets ``model.width`` and ``train.epochs``. With the same graph, config and seed,
    ``fit`` and the command give the same numbers.

    Args:
      graph: a graph, or the path of a graph folder.
      config: the name of a bundled config, the path of a config file, a config made by ``default_config``, or a nested
        dict of its fields.
      workdir: the folder of the run. If training is interrupted with Ctrl-C, the same call resumes it. ``load`` and the
        commands read the folder. A graph that was not read from a folder is written into it. None: a temporary folder,
        which is removed together with the model.
      trackers: objects that receive the metrics of each evaluation. They are closed when training ends, also after an
        error. See ``mocme_jax.training.logs.trackers``.
      on_evaluation: called as ``on_evaluation(numbers, epoch)`` after each evaluation. ``numbers`` maps names such as
        ``dev/mrr`` to values.
      start: initial vectors of the structure expert: ``{"entities": array [N, d]}`` in the order of ``graph.entities``,
        and optionally ``"relations": array [R, d_r]``. Instead of an array, a mapping from name to vector may be given;
        the other vectors are then random. d is ``model.width``. d_r equals d, except for ``rotate`` (phases in radians,
        d / 2) and ``tucker`` (``model.core_width``).
      fields: config fields by their last name, or by their path with ``__`` for the dot, such as
        ``loss__kind="logistic"``.

    Returns:
      The model of the best epoch on dev.

    Raises:
      UserError: the graph, the config or the folder is invalid. The message is the one that the command prints after
        ``error:``.
      FloatingPointError: the loss or a score is not finite.
      KeyboardInterrupt: Ctrl-C was pressed. With ``workdir``, the progress is saved there.
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
        folder = undo.enter_context(_folder(workdir))
        chosen = _config(config, fields, graph, folder if kept else None)
        how = f"fit with workdir={str(folder)!r} continues" if kept else "with a workdir, fit could continue"
        with _interrupts(how) as interrupts:
            options = dict(graph=graph, trackers=trackers, start=start)
            write_card(folder, train_and_evaluate(chosen, folder, interrupts, **options))
        model = load(folder, graph=graph)
        if not kept:
            # The folder is removed when neither the model nor a model derived from it is referenced.
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
    """Run an ablation study and return its table, as ``python -m mocme_jax.ablate`` does.

    Args:
      graph: see ``fit``.
      study: the name of a bundled study, the path of a study file, or the cells themselves, such as
        ``{"full": {}, "no EGNS": {"weighting": "uniform"}}``. Every cell is compared with the first.
      seeds: the number of seeds per cell. They are trained together.
      config: the config that all cells start from; see ``fit``.
      workdir: the folder of the study. Finished cells are kept there and are not run again. None: a temporary folder.
      cells: names of the cells to run in addition to the first. Empty: all cells.
      fields: config fields; see ``fit``.

    Returns:
      One row per cell. ``to_frame()`` gives a DataFrame.

    Raises:
      UserError: the graph, the config, the study or the folder is invalid.
      KeyboardInterrupt: Ctrl-C was pressed. With ``workdir``, the same call resumes.
    """
    from mocme_jax.studies.study import run_study

    graph = _graph(graph)
    if not isinstance(study, str):
        study = {cell: {path_of(name): value for name, value in changes.items()} for cell, changes in study.items()}
    alone = baseline_of(config) if isinstance(config, str) else STRUCTURE_ALONE
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(_folder(workdir))
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
    """Search for config values and return the best point on dev, as ``python -m mocme_jax.search`` does.

    The result fits ``fit``: ``fit(graph, **search(graph, space))``.

    Args:
      graph: see ``fit``.
      space: the name of a bundled search space, the path of a search file, or the space itself. A space maps each field
        to a list of values, or to ``Log(low, high)`` or ``Uniform(low, high)`` of ``mocme_jax.studies.search_space``.
      trials: the number of points. The first point is the config itself.
      config: the config to start from; see ``fit``.
      workdir: the folder of the search. Finished points are kept there and are not tried again. None: a temporary
        folder.
      minutes: no new point starts after this time.
      sampler: ``"random"``, or ``"tpe"`` for Optuna's TPE, which samples at random for the first ten points and then
        learns from all earlier ones. It needs the extra ``search``.
      pruner: ``"none"``, or ``"median"``, which stops a point early if its best dev MRR is below the median of the
        finished points at the same epoch. A pruned point is never the best.
      fields: config fields; see ``fit``.

    Returns:
      The changed fields by path, with ``__`` for the dot.

    Raises:
      UserError: the graph, the config, the space or the folder is invalid.
      KeyboardInterrupt: Ctrl-C was pressed. With ``workdir``, the same call resumes.
    """
    from mocme_jax.search import OPTIONS
    from mocme_jax.studies import parameter_search

    options = dict(trials=trials, minutes=minutes, sampler=sampler, pruner=pruner)
    options = {name: check_value(name, OPTIONS[name], value, "") for name, value in options.items()}
    graph = _graph(graph)
    if not isinstance(space, str):
        space = {path_of(name): choice for name, choice in space.items()}
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(_folder(workdir))
        chosen = _config(config, fields, graph, None)
        with _interrupts("search with the same workdir continues") as interrupts:
            best = parameter_search.search(chosen, space, folder, **options, preemption=interrupts, graph=graph)
    return {path.replace(".", "__"): value for path, value in best["changes"].items()}


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    """Split a mean with its standard deviation into two columns."""
    if not isinstance(value, Mapping):
        return [(name, value)]
    return [(name, value["mean"]), (f"{name}_deviation", value["deviation"])]


def _graph(graph: KnowledgeGraph | str | os.PathLike) -> KnowledgeGraph:
    return graph if isinstance(graph, KnowledgeGraph) else KnowledgeGraph.from_folder(graph)


def _config(
    config: str | Mapping[str, Any], fields: Mapping[str, Any], graph: KnowledgeGraph, folder: Path | None
) -> ConfigDict:
    """Make the config: set the fields and the location of the graph.

    The location is the graph's own folder. A graph without a folder is written into the run's folder, if there is one.
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
    """Write the graph unless the folder holds it already; the file that is written last shows this."""
    if not (folder / LAST_FILE).exists():
        graph.save(folder)
    elif KnowledgeGraph.from_folder(folder, make=()).fingerprints() != graph.fingerprints():
        raise UserError(f"{folder.parent}: contains a run on another graph; name another workdir")


@contextlib.contextmanager
def _folder(workdir: str | os.PathLike | None) -> Iterator[Path]:
    """Give the folder of a run, or a temporary one."""
    if workdir is not None:
        check_place("workdir", workdir)
        yield Path(workdir)
        return
    with tempfile.TemporaryDirectory(prefix="mocme_jax-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _interrupts(how: str) -> Iterator[Preemption]:
    """Handle Ctrl-C: the first one stops after the current step, the second at once, both as KeyboardInterrupt."""
    from mocme_jax.training.preemption import Preemption, Stopped

    # Not entered, because a signal must not end the caller's process.
    interrupts = Preemption()

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
