"""How fast a configuration trains and evaluates, beside structure alone, measured in turns in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax import __version__
from mocme_jax.data.graph import KnowledgeGraph
from mocme_jax.parallel.mapping import Mapper
from mocme_jax.training import setup
from mocme_jax.training.progress import make_console, results_table

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def structure_alone(config: ConfigDict) -> ConfigDict:
    """The structural baseline of a configuration: no modality, no expert, every negative alike."""
    baseline = config.copy_and_resolve_references()
    with baseline.unlocked():
        baseline.data.modalities = ("structure",)
        baseline.model.experts = 0
        baseline.model.structure_dropout = 0.0
        baseline.negatives.weighting = "uniform"
    return baseline


def measure(config: ConfigDict, *, pool: int, steps: int, repeats: int, json_file: str | None) -> dict:
    """Prints and returns rates: training triples/s and filtered queries/s, median and best over the repeats.

    Args:
      config: the full model; ``structure_alone`` of it is measured beside it.
      pool: shared candidates, the only candidates beside the positive.
      steps: steps a timed call.
      repeats: timed calls; the stages take turns, so that a noisy moment hits all of them.
      json_file: a file for the figures, or None.
    """
    console = make_console()
    with config.unlocked():
        config.negatives.pool = pool
        config.negatives.batch_candidates = False
    dataset = setup.load_dataset(config, notify=console.print)
    mapper = setup.build_mapper(config)
    devices = mapper.count
    baseline = structure_alone(config)
    stages: dict[str, tuple[Callable[[], None], int]] = {}
    for name, settings, graph in (
        ("train, full model", config, dataset.graph),
        ("train, structure alone", baseline, dataset.graph.replace(modalities=())),
    ):
        stages[name] = _training(settings, graph, steps, mapper), steps * config.train.batch_size
    evaluation, encoding = _evaluation(config, dataset, mapper)
    stages["encode all entities"] = encoding, len(dataset.graph.entities)
    stages["filtered evaluation"] = evaluation, 2 * len(dataset.graph.test)
    units = {"train, full model": "triples/s", "train, structure alone": "triples/s"}
    units |= {"encode all entities": "entities/s", "filtered evaluation": "queries/s"}

    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for name, (call, _) in stages.items():
        start = time.perf_counter()
        call()
        console.print(f"{name}: first call {time.perf_counter() - start:.1f} s, with compilation")
    for _ in range(repeats):
        for name, (call, _) in stages.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    rows = [
        {
            "stage": name,
            "unit": units[name],
            "median": round(size / float(np.median(seconds[name]))),
            "best": round(size / min(seconds[name])),
        }
        for name, (_, size) in stages.items()
    ]
    graph = dataset.graph
    kind = jax.local_devices()[0].device_kind
    title = (
        f"{graph.name}: {len(graph.entities):,} entities, width {config.model.width}, batch {config.train.batch_size}, "
        f"{pool:,} shared candidates, both directions; {devices} x {kind}, jax {jax.__version__}"
    )
    results_table(rows, title=title, console=console)
    figures = {"title": title, "version": __version__, "rows": rows}
    if json_file is not None:
        _write(Path(json_file), figures)
    return figures


def _training(config: ConfigDict, graph: KnowledgeGraph, steps: int, mapper: Mapper) -> Callable[[], None]:
    """A call that takes so many training steps from where the last one ended."""
    model = setup.build_model(config, graph)
    training = setup.build_training(config, model, graph, mapper)
    state = [training.plan.create()]

    def call() -> None:
        state[0], metrics = training.program(state[0], training.data, jnp.int32(steps))
        jax.block_until_ready(metrics)

    return call


def _evaluation(
    config: ConfigDict, dataset: setup.Dataset, mapper: Mapper
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Calls that rank the test split in both directions, and that encode every entity."""
    model = setup.build_model(config, dataset.graph)
    training = setup.build_training(config, model, dataset.graph, mapper)
    params, inputs = training.plan.create().params, training.inputs
    encode = setup.build_encode(config, model, dataset.graph, mapper)
    vectors = encode(params, inputs)[0]
    evaluator = setup.build_evaluator(config, model, dataset, mapper)
    return (
        lambda: evaluator.ranks(params.model, vectors, "test"),
        lambda: jax.block_until_ready(encode(params, inputs)),
    )


def _write(path: Path, figures: dict) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
