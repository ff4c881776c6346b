"""Stages of a run as they are timed: training steps, the encoding of all entities, filtered evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from mocme_jax.data.graph import KnowledgeGraph
from mocme_jax.measure.calibration import Calibration
from mocme_jax.parallel.mapping import WHOLE
from mocme_jax.training import setup
from mocme_jax.training.encoding import make_encode_program

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class Stage(NamedTuple):
    """A stage, compiled.

    Attributes:
      name: what is printed.
      call: runs it once and waits for its end.
      unit: of its rate.
      size: units a call.
      steps: training steps a call; 1 for other stages.
      candidates: scores a call computes; 0 where it computes none.
      compile_seconds: the first call's time.
      flops, moved: operations of one device's program for one step, and bytes that must move; see ``_cost``.
      memory: bytes of one device: arguments, results and temporaries of the program.
    """

    name: str
    call: Callable[[], Any]
    unit: str
    size: int
    steps: int
    candidates: int
    compile_seconds: float
    flops: float
    moved: float
    memory: int


def training_stage(name: str, config: ConfigDict, graph: KnowledgeGraph, steps: int) -> Stage:
    """Training steps, from where the last call ended."""
    mapper = setup.build_mapper(config)
    model = setup.build_model(config, graph)
    training = setup.build_training(config, model, graph, mapper)
    state, batch = [training.plan.create()], config.train.batch_size
    count = mapper.place(np.int32(steps), WHOLE)

    def call() -> None:
        # Past an epoch's end the same order begins again, which changes no time.
        state[0], metrics = training.program(state[0], training.data, count)
        jax.block_until_ready(metrics)

    seconds, (flops, moved, memory) = _compiled(call, training.program, (state[0], training.data, count))
    if len(graph.entities) > config.train.dense_entities:
        # Tables are written where they lie, a few rows a step: their size says nothing of what must move.
        moved = 0.0
    negatives = config.negatives
    columns = min(negatives.pool, len(graph.entities))
    if negatives.batch_candidates and columns < len(graph.entities):
        columns += 2 * batch
    scores = 2 * steps * batch * columns
    return Stage(name, call, "triples/s", steps * batch, steps, scores, seconds, flops, moved, memory)


def evaluation_stages(config: ConfigDict, dataset: setup.Dataset) -> list[Stage]:
    """The encoding of every entity, and the ranking of test in both directions."""
    graph, mapper = dataset.graph, setup.build_mapper(config)
    model = setup.build_model(config, graph)
    training = setup.build_training(config, model, graph, mapper)
    params, inputs = training.plan.create().params, training.inputs
    encode = setup.build_encode(config, model, graph, mapper)
    vectors = encode(params, inputs)[0]
    evaluator = setup.build_evaluator(config, model, dataset, mapper)
    entities, queries = len(graph.entities), 2 * len(graph.test)

    # Compilers count the body of a loop once; in one block there is no loop. It is compiled, never run.
    whole = make_encode_program(
        model, entities=entities, mapper=mapper, split=config.parallel.shard_entities, block=entities
    )
    seconds, _ = _compiled(lambda: jax.block_until_ready(encode(params, inputs)), encode, (params, inputs))
    flops, moved, _ = _cost(whole, (params, inputs))
    memory = _cost(encode, (params, inputs))[2]
    stages = [
        Stage(
            "encode all entities",
            lambda: jax.block_until_ready(encode(params, inputs)),
            *("entities/s", entities, 1, 0, seconds, flops, moved, memory),
        )
    ]
    start = time.perf_counter()
    evaluator.ranks(params.model, vectors, "test")
    seconds = time.perf_counter() - start
    plan = evaluator.plan("test")
    distinct = plan.heads.size
    held = -(-entities // mapper.count)
    # Every distinct query against this device's entities; scores are written once and read for every gold.
    flops = 2.0 * distinct * held * config.model.width + 2.0 * queries * held
    moved = 4.0 * (2 * distinct * held + queries * held + len(plan.heads) * held * config.model.width)
    memory = 4 * (plan.heads.shape[1] * held + 2 * held * config.model.width)
    stages.append(
        Stage(
            "filtered evaluation",
            lambda: evaluator.ranks(params.model, vectors, "test"),
            *("queries/s", queries, 1, distinct * entities, seconds, flops, moved, memory),
        )
    )
    return stages


def _compiled(call: Callable, program: Any, arguments: tuple) -> tuple[float, tuple[float, float, int]]:
    # Lowered before the call, which takes the memory of what it is given.
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arguments)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start, _cost(program, shapes)


def _cost(program: Any, arguments: tuple) -> tuple[float, float, int]:
    """Operations, bytes that must move, and bytes of memory of one device's program.

    The compiler's own count of bytes takes every operand as read from memory, which caches spare; never more than all
    arguments and results need to move.
    """
    compiled = program.lower(*arguments).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    ends = memory.argument_size_in_bytes + memory.output_size_in_bytes
    moved = min(cost.get("bytes accessed", ends), ends)
    return cost.get("flops", 0.0), moved, ends + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def timed(stages: list[Stage], repeats: int) -> list[list[float]]:
    """Seconds a step of each stage; stages take turns, so that a noisy moment hits all of them."""
    seconds: list[list[float]] = [[] for _ in stages]
    for _ in range(repeats):
        for stage, own in zip(stages, seconds, strict=True):
            start = time.perf_counter()
            stage.call()
            own.append((time.perf_counter() - start) / stage.steps)
    return seconds


def row_of(stage: Stage, seconds: list[float], limits: Calibration, devices: int, setting: dict) -> dict:
    """A stage's figures, for the table and for JSON.

    Args:
      stage: what was timed.
      seconds: of each repeat, a step.
      limits: of one device.
      devices: that share one machine's limits where they are CPU devices.
      setting: devices, mapper and precision, by name.
    """
    median = float(np.median(seconds))
    shared = devices if jax.default_backend() == "cpu" else 1
    roofline = shared * limits.roofline(stage.flops, stage.moved)
    rate = stage.size / stage.steps / median
    return {
        "stage": stage.name,
        **setting,
        "unit": stage.unit,
        "rate": rate,
        "best": stage.size / stage.steps / min(seconds),
        "scores/s": stage.candidates / stage.steps / median if stage.candidates else None,
        "ms": 1e3 * median,
        "ms p95": 1e3 * float(np.percentile(seconds, 95)),
        "compile s": stage.compile_seconds,
        "GFLOP": stage.flops / 1e9,
        "GB moved": stage.moved / 1e9,
        "GB held": stage.memory / 1e9,
        "roofline ms": 1e3 * roofline,
        "share": roofline / median,
    }
