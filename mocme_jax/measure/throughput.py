"""A benchmark in one run: what the devices can do, what the program does, and the share of the one in the other."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from mocme_jax import __version__
from mocme_jax.config import config_from_dict, structure_alone
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError, one_line
from mocme_jax.measure.timed_stages import Stage, calibrate, evaluation_stages, row_of, timed, training_stage
from mocme_jax.training.logs.progress import make_console, results_table
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of, with_fields

SETTING = ("stage", "entities", "devices", "mapper", "precision")
"""What tells rows apart; a row may lack some, but not its stage."""

_ROW = {"stage": str, "unit": str, "rate": float, "share": float}
_ROW |= {f"{name}?": (str, int) for name in SETTING[1:]}


def read_figures(path: str | Path) -> dict[str, Any]:
    """The figures that ``benchmark --json`` wrote to a file: ``device``, a text, and ``rows``.

    A row has texts and whole numbers in ``stage`` and the rest of SETTING, a text ``unit``, and the numbers
    ``rate`` (above 0) and ``share``.

    Raises:
      UserError: the file is missing or unreadable, or not what ``benchmark --json`` writes.
    """
    figures = read_json(Path(path))
    if misfit(figures, {"device": str}) or not figures.get("rows"):
        raise UserError(f"{path}: is not a file of benchmark --json; write it with that command")
    if misfit(figures["rows"], [_ROW]) or not all(row["rate"] > 0 for row in figures["rows"]):
        raise UserError(f"{path}: has rows that benchmark --json does not write; write the file with that command")
    return {"device": one_line(figures["device"]), "rows": [_printable(row) for row in figures["rows"]]}


def setting_of(row: dict[str, Any]) -> tuple:
    """What a row was measured for, in the order of SETTING."""
    return tuple(row[name] for name in SETTING if name in row)


def _printable(row: dict[str, Any]) -> dict[str, Any]:
    return {one_line(name): one_line(value) if isinstance(value, str) else value for name, value in row.items()}


# As many for every size, so that what grows is the entities alone. A call shuffles its epoch's triples once.
_TRIPLES = 100_000


def synthetic_graph(entities: int, *, relations: int = 100, feature_width: int = 16) -> KnowledgeGraph:
    """A graph of random triples, in which half of the entities carry random features.

    Args:
      entities: N.
      relations: R.
      feature_width: of the one feature modality; 0 for none.
    """
    rng = np.random.default_rng(0)
    triples = rng.integers(0, [entities, relations, entities], (_TRIPLES, 3), dtype=np.int32)
    modalities = ()
    if feature_width:
        features = rng.standard_normal((entities, feature_width), dtype=np.float32)
        present = rng.random(entities) < 0.5
        modalities = (Modality("text", features, present),)
    held_out = triples[:1000]
    return KnowledgeGraph(
        name=f"synthetic, {entities:,} entities",
        entities=range(entities),
        relations=range(relations),
        train=triples,
        valid=held_out,
        test=held_out,
        modalities=modalities,
    )


def measure(
    config: ConfigDict,
    *,
    devices: Sequence[int],
    mappers: Sequence[str],
    precisions: Sequence[str],
    entities: Sequence[float],
    steps: int,
    repeats: int,
    json_file: str | None,
    trace: str | None,
) -> dict:
    """Prints and returns the figures of every setting asked for, all measured in one run.

    Args:
      config: the full model; ``structure_alone`` of it is measured beside it.
      devices, mappers, precisions: to be combined; empty ones stand for the configuration's own.
      entities: sizes of synthetic graphs to be trained on in place of the configured graph; empty for that one.
      steps: training steps a timed call.
      repeats: timed calls of each stage, in turns.
      json_file: a file for the figures, or None.
      trace: a folder for a profiler trace of one call of each stage, or None.
    """
    console = make_console()
    rows, limits = [], {}
    if not entities:
        dataset = builders.load_dataset(config, notify=console.print)
        graphs = [dataset.graph]
    else:
        graphs = (synthetic_graph(int(size)) for size in entities)
    own = settings_of(config)
    asked = (devices or [own.devices], mappers or [own.mapper], precisions or [own.precision])
    settings = list(itertools.product(*asked))
    for graph in graphs:
        # Stages of all settings take turns, so that a noisy moment hits all of them.
        stages: list[Stage] = []
        for count, kind, precision in settings:
            changes = {"parallel.devices": count, "parallel.mapper": kind, "train.precision": precision}
            one = with_fields(config, changes)
            setting = {"entities": len(graph.entities)} if entities else {}
            setting |= {"devices": builders.build_mapper(one).count, "mapper": kind}
            for stage in _stages(one, graph, None if entities else dataset, steps):
                stages.append(stage._replace(setting=setting))
                console.print(f"{stage.name}: compiled in {stage.cost.seconds:.1f} s")
        for stage in stages:
            if stage.precision not in limits:
                most = limits[stage.precision] = calibrate(jax.local_devices()[0], stage.precision)
                rates = f"matrix products at {most.flops / 1e9:,.0f} GFLOP/s, copies at {most.bytes / 1e9:,.1f} GB/s"
                console.print(f"one device, {stage.precision}: {rates}", soft_wrap=True)
        pairs = zip(stages, timed(stages, repeats), strict=True)
        rows += [row_of(stage, seconds, limits[stage.precision]) for stage, seconds in pairs]
        if trace is not None:
            with jax.profiler.trace(trace):
                for stage in stages:
                    stage.call()
    experts = builders.build_model(config, graph).encoder.experts
    word = "expert" if experts == 1 else "experts"
    figures = {
        "title": f"{graph.name}, {experts} {word} of width {own.width}, batch {own.batch_size}, pool {own.pool}",
        "device": jax.local_devices()[0].device_kind,
        "device count": jax.device_count(),
        "platform": jax.default_backend(),
        "jax": jax.__version__,
        "version": __version__,
        "limits": {name: one._asdict() for name, one in limits.items()},
        "rows": rows,
    }
    _print(figures, console)
    if json_file is not None:
        Path(json_file).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def _stages(config: ConfigDict, graph: KnowledgeGraph, dataset: Any, steps: int) -> list[Stage]:
    if dataset is None:
        return [training_stage("train", config, graph, steps)]
    alone = structure_alone(config_from_dict(config.to_dict()))
    return [
        training_stage("train, full model", config, graph, steps),
        training_stage("train, structure alone", alone, graph.replace(modalities=()), steps),
        *evaluation_stages(config, dataset),
    ]


def _print(figures: dict, console: Console) -> None:
    shown = [
        {name: row[name] for name in SETTING if name in row}
        | {
            "rate": f"{row['rate']:,.0f} {row['unit']}",
            "scores/s": f"{row['scores/s']:.2e}" if row["scores/s"] else "",
            "ms": f"{row['ms']:.1f}",
            "p95": f"{row['ms p95']:.1f}",
            "GFLOP": f"{row['GFLOP']:.2f}",
            "GB moved": f"{row['GB moved']:.2f}",
            "GB held": f"{row['GB held']:.2f}",
            "limit ms": f"{row['roofline ms']:.1f}",
            "share": f"{row['share']:.0%}",
        }
        for row in figures["rows"]
    ]
    title = f"{figures['title']}; {figures['device']}, jax {figures['jax']}"
    results_table(shown, title=title, console=console)
    console.print(
        "GFLOP, GB moved, GB held: per device and step, as counted by the compiler; limit: the longer of the times for "
        "GFLOP and GB moved at the rates above, which the devices of one CPU share; share: limit / median time",
        soft_wrap=True,
    )


def compare(paths: Sequence[str]) -> list[dict]:
    """Prints saved figures side by side, rates as ratios to the first file's, and returns the rows."""
    files = [read_figures(path) for path in paths]
    first = {setting_of(row): row["rate"] for row in files[0]["rows"]}
    rows = [
        {
            "stage": " ".join(map(str, setting_of(row))),
            "file": Path(path).name,
            "device": figures["device"],
            "rate": f"{row['rate']:,.0f} {row['unit']}",
            "ratio": f"{row['rate'] / first[setting_of(row)]:.2f}" if setting_of(row) in first else "",
            "share of limit": f"{row['share']:.0%}",
        }
        for path, figures in zip(paths, files, strict=True)
        for row in figures["rows"]
    ]
    rows.sort(key=lambda row: row["stage"])
    results_table(rows, title=f"ratios to {Path(paths[0]).name}")
    return rows
