"""A study: cells that differ from one configuration in a few fields each, all trained with the same seeds.

A cell may also change the graph itself: its changes named ``graph.WORD`` are given to the study file's
``change_graph(graph, seed, WORD=...)``, which returns another graph; `mocme_jax.studies.degraded_graph` has some.
"""

import dataclasses
import inspect
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from mocme_jax.config import find_config, load_function, validate
from mocme_jax.config_fields import Value
from mocme_jax.config_values import show
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.splits import clean_rows
from mocme_jax.errors import UserError
from mocme_jax.studies.finished_cells import Rows
from mocme_jax.studies.seed_training import Curve, train_seeds
from mocme_jax.studies.study_folder import TABLE
from mocme_jax.studies.study_table import make_table, print_table
from mocme_jax.training.checkpoints.run_folder import locked, write_json
from mocme_jax.training.checkpoints.run_position import identity_of
from mocme_jax.training.jax_start import prepare_jax
from mocme_jax.training.logs.progress import make_console
from mocme_jax.training.logs.run_results import graph_of
from mocme_jax.training.preemption import Preemption
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of, with_fields

# By name, what a cell changes: config field, or word of its file's ``change_graph`` -> value.
Cells = Mapping[str, Mapping[str, Value]]

_PREFIX = "graph."


def load_cells(
    study: str | Cells, config: ConfigDict, modalities: Sequence[str], alone: Mapping[str, Value]
) -> tuple[Cells, Callable[..., KnowledgeGraph] | None]:
    """The cells of a study file, the first of which the others are compared with, and its ``change_graph``.

    Args:
      study: a study of ``configs/studies`` by name, a file of one's own, or the cells themselves.
      config: what every cell starts from.
      modalities: the graph's feature modalities.
      alone: what makes the config the structural baseline.

    Raises:
      UserError: no such study, or a cell that changes what cannot be changed.
    """
    if isinstance(study, str):
        path = find_config(study, "studies", "--study")
        cells = load_function(path, "get_cells(config, modalities, alone)")(config, list(modalities), dict(alone))
    else:
        path, cells = None, study
    if not cells:
        where = f"{path}: " if path else ""
        raise UserError(f"{where}has no cells for a graph with the modalities {', '.join(modalities) or 'none'}")
    for changes in cells.values():
        changed(config, fields_of(changes))
    return cells, None if path is None else load_graph_change(path, cells)


def changed(config: ConfigDict, changes: Mapping[str, Value]) -> ConfigDict:
    """The configuration with some fields changed, checked; what does not fit is a UserError."""
    result = with_fields(config, changes)
    validate(result)
    return result


def run_study(
    config: ConfigDict,
    study: str | Cells,
    workdir: Path,
    *,
    seeds: int,
    alone: Mapping[str, Value],
    cells: Sequence[str] = (),
    preemption: Preemption | None = None,
    graph: KnowledgeGraph | None = None,
) -> dict:
    """Runs what is not finished of a study, prints and writes its table, and returns it.

    Args:
      config: what every cell starts from; its seed is that of the dev split and of changes of the graph, which
        all seeds share.
      study: its name, see ``load_cells``; or cells.
      seeds: how many, from the config's on, trained together.
      alone: see ``load_cells``.
      cells: names of those to run; all, where there are none. The first cell is run in any case.
      graph: what to train on, in place of what the config names.

    Raises:
      UserError: bad data, a folder that cannot be written or holds another study, an unknown cell.
      Stopped: a signal has ended the study in good order.
    """
    prepare_jax()
    preemption, console = preemption or Preemption(), make_console()
    own = range(settings_of(config).seed, settings_of(config).seed + seeds)
    note = console.print
    dataset = builders.load_dataset(config, note, graph)
    modalities = [modality.name for modality in dataset.graph.modalities]
    found, change_graph = load_cells(study, config, modalities, alone)
    name = study if isinstance(study, str) else "given in Python"
    chosen = _chosen(found, cells)
    told = f"{dataset.graph.name}: study {name}, {len(chosen)} cells"
    note(f"{told}, seeds {' '.join(map(str, own))}; dev: {dataset.dev}")
    for line in dataset.warnings:
        note(f"warning: {line}")
    with locked(workdir, settings_of(config).lock):
        rows = Rows(workdir, identity_of_study(name, config, found, dataset, own))
        clean = clean_rows(dataset.graph.splits["test"], dataset.known[0])
        preemption.something_to_save()
        for number, (cell, changes) in enumerate(chosen.items(), 1):
            missing = [seed for seed in own if seed not in rows.of(cell, changes)]
            if missing:
                note(f"cell {number} of {len(chosen)}: {cell}  {as_flags(changes)}".rstrip())
                signals = dict(preemption=preemption, console=console)
                sources = dict(change_graph=change_graph, graph=graph)
                run_cell(rows, cell, changes, config, dataset, missing, **signals, **sources)
                write_json(rows.folder / TABLE, make_table(rows, found, own, clean))
        table = make_table(rows, found, own, clean)
        write_json(rows.folder / TABLE, table)
    print_table(table, f"{dataset.graph.name}, {name}", console)
    note(f"rows: {workdir / 'rows.jsonl'}   table: {workdir / 'table.json'}")
    return table


def run_cell(
    rows: Rows,
    cell: str,
    changes: Mapping[str, Value],
    config: ConfigDict,
    dataset: builders.Dataset,
    seeds: Sequence[int],
    *,
    preemption: Preemption,
    console: Console,
    change_graph: Callable[..., KnowledgeGraph] | None = None,
    graph: KnowledgeGraph | None = None,
    test: bool = True,
    prune: Callable[[Curve], str | None] | None = None,
) -> None:
    """Trains a cell's seeds together and adds their rows; continues what was begun before.

    A cell that changes the data has them loaded anew, or takes another part of the ``graph``. ``test`` and ``prune``
    are those of ``train_seeds``.
    """
    own, start = changed(config, fields_of(changes)), time.perf_counter()
    if any(path.startswith("data.") for path in changes):
        dataset = builders.load_dataset(own, graph=graph)
    if words := words_of(changes):
        dataset = change_dataset(dataset, change_graph, settings_of(own).seed, words)
    name = f"{rows.ranks_path(cell, seeds[0]).stem}-{seeds[-1]}.{len(seeds)}"
    folder = rows.folder / "under_way" / name
    signals = dict(preemption=preemption, console=console)
    trained = train_seeds(own, dataset, seeds, folder, **signals, test=test, prune=prune)
    rows.add(cell, changes, trained, time.perf_counter() - start)
    shutil.rmtree(rows.folder / "under_way", ignore_errors=True)


def identity_of_study(
    name: str, config: ConfigDict, cells: Cells, dataset: builders.Dataset, seeds: Sequence[int]
) -> dict:
    """What ``study.json`` says; a study that goes on must agree in graph and config."""
    identity = identity_of(config.to_dict(), dataset.parts, dataset.fingerprint)
    return identity | {
        "study": name,
        "reference": next(iter(cells)),
        "seeds": list(seeds),
        "cells": {cell: dict(changes) for cell, changes in cells.items()},
        "graph": graph_of(dataset),
        "warnings": dataset.warnings,
        "jax": jax.__version__,
        "device": jax.local_devices()[0].device_kind,
    }


def _chosen(cells: Cells, only: Sequence[str]) -> Cells:
    for cell in only:
        if cell not in cells:
            raise UserError(f"--cells: unknown cell {cell}; the cells are {', '.join(cells)}")
    first = next(iter(cells))
    return {cell: changes for cell, changes in cells.items() if not only or cell in only or cell == first}


def as_flags(changes: Mapping[str, Value]) -> str:
    """The changes as flags of ``mocme_jax.train``; those of the graph itself have none, and are named alone."""
    dashes = {path: "" if path.startswith(_PREFIX) else "--config." for path in changes}
    return " ".join(f"{dashes[path]}{path}={show(value)}" for path, value in changes.items())


def fields_of(changes: Mapping[str, Value]) -> dict[str, Value]:
    """A cell's config fields."""
    return {path: value for path, value in changes.items() if not path.startswith(_PREFIX)}


def words_of(changes: Mapping[str, Value]) -> dict[str, Any]:
    """What a cell gives to ``change_graph``."""
    return {path.removeprefix(_PREFIX): value for path, value in changes.items() if path.startswith(_PREFIX)}


def load_graph_change(path: Path, cells: Mapping[str, Mapping[str, Value]]) -> Callable[..., KnowledgeGraph] | None:
    """The ``change_graph`` of a study file, or None where no cell changes the graph.

    Raises:
      UserError: the file has none, or it takes other words than a cell gives.
    """
    wanted = {cell: words for cell, changes in cells.items() if (words := words_of(changes))}
    if not wanted:
        return None
    change_graph = load_function(path, "change_graph(graph, seed, ...)")
    for cell, words in wanted.items():
        try:
            json.dumps(words)
            inspect.signature(change_graph).bind(None, 0, **words)
        except TypeError as error:
            raise UserError(f"{path}: cell {cell} does not fit change_graph: {error}") from error
    return change_graph


def change_dataset(
    dataset: builders.Dataset, change_graph: Callable[..., KnowledgeGraph], seed: int, words: Mapping[str, Value]
) -> builders.Dataset:
    """The dataset with its graph changed; its parts tell of it, and what filters scores stays.

    Raises:
      UserError: the graph's triples stay on the disk, or the change cannot be made.
    """
    if dataset.graph.mapped:
        raise UserError(f"{dataset.graph.name}: a study that changes the graph needs its triples in memory")
    changed = change_graph(dataset.graph, seed, **words)
    return dataclasses.replace(dataset, graph=changed, parts=dataset.parts | {"graph change": json.dumps(words)})
