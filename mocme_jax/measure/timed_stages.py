"""Stages of a run as they are timed (training steps, encoding, evaluation), and what their device can do at most."""

import time
import timeit
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.evaluation.evaluation_plan import BLOCK
from mocme_jax.parallel.mesh import WHOLE, Program
from mocme_jax.training.entity_encoding import make_encode_program
from mocme_jax.training.objective import PRODUCTS
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import candidates_per_query, settings_of
from mocme_jax.training.step import finite

# Square products of these sizes; the fastest counts.
_SIZES = (1024, 2048, 4096)
# A product that takes longer than this is the last one tried, in seconds.
_PATIENCE = 1.5
_COPIED_BYTES = 256 << 20


class Calibration(NamedTuple):
    """Limits of one device.

    Attributes:
      flops: floating point operations a second of the fastest product.
      bytes: bytes read and written a second while copying an array larger than any cache.
    """

    flops: float
    bytes: float

    def roofline(self, flops: float, moved: float) -> float:
        """Return the least seconds for these operations and bytes: the longer of both times (Williams et al., 2009)."""
        return max(flops / self.flops, moved / self.bytes)


def calibrate(device: jax.Device, precision: str, repeats: int = 5) -> Calibration:
    """Measures a device.

    Args:
      device: to be idle otherwise. Where several devices share one chip, such as CPU devices, each alone has all of it.
      precision: a word of ``train.precision``; the product is in it.
      repeats: of each measurement; the best counts.
    """
    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    best = 0.0
    for size in _SIZES:
        with jax.default_matmul_precision(PRODUCTS[precision]):
            square = jax.device_put(jnp.ones((size, size), kind), device)
            seconds = _quickest(jax.jit(jnp.matmul), (square, square), repeats)
        best = max(best, 2 * size**3 / seconds)
        if seconds > _PATIENCE:
            break
    array = jax.device_put(jnp.ones((_COPIED_BYTES // 4,), jnp.float32), device)
    # A copy that cannot be left out: one read and one write a number.
    seconds = _quickest(jax.jit(lambda x: x + 1), (array,), repeats)
    return Calibration(best, 2 * _COPIED_BYTES / seconds)


def _quickest(call: Callable, arguments: tuple, repeats: int) -> float:
    jax.block_until_ready(call(*arguments))
    return min(timeit.repeat(lambda: jax.block_until_ready(call(*arguments)), number=1, repeat=repeats))


class Compiled(NamedTuple):
    """A program compiled ahead of its first call, and what the compiler says of one device's part.

    Attributes:
      seconds: it took to trace and compile.
      flops: operations; the body of a loop counts once.
      moved: bytes that must move: the compiler's count, which takes every operand as read from memory though caches
        spare most of that, but never more than all arguments and results.
      memory: bytes of arguments, results and temporaries.
    """

    seconds: float
    flops: float
    moved: float
    memory: int


class Stage(NamedTuple):
    """A stage that can be timed.

    Attributes:
      name: what is printed.
      call: runs it once and waits for its end.
      unit: of its rate.
      precision: that it computes in.
      size: units a call.
      steps: training steps a call; 1 for other stages.
      candidates: scores a call computes; 0 where it computes none.
      cost: of one step, on one device.
      setting: the entities of a synthetic graph, the devices and the mapper, by name.
    """

    name: str
    call: Callable[[], Any]
    unit: str
    precision: str
    size: int
    steps: int
    candidates: int
    cost: Compiled
    setting: dict[str, Any]


def compiled(program: Program, *arguments: Any) -> Compiled:
    """Compiles a program for its arguments, and runs nothing."""
    start = time.perf_counter()
    built = program.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    cost, memory = built.cost_analysis(), built.memory_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    ends = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held = ends + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(seconds, cost.get("flops", 0.0), min(cost.get("bytes accessed", ends), ends), held)


def training_stage(name: str, config: ConfigDict, graph: KnowledgeGraph, steps: int) -> Stage:
    """Training steps, from where the last call ended."""
    mapper = builders.build_mapper(config)
    model = builders.build_model(config, graph)
    training = builders.build_training(config, model, graph, mapper)
    state, batch, entities = [training.plan.create()], training.batch_size, len(graph.entities)
    count = mapper.place(np.int32(steps), WHOLE)
    cost = compiled(training.program, state[0], training.data, count)
    if builders.updates_rows_alone(config, entities):
        # Tables are written where they lie, a few rows a step: their size says nothing of what must move.
        cost = cost._replace(moved=0.0)

    def call() -> None:
        state[0], latest = training.program(state[0], training.data, count)
        if not finite(latest):
            raise FloatingPointError(f"{name}: the loss is not finite; later steps were not run")

    scores = 2 * steps * batch * candidates_per_query(config, entities)
    return Stage(name, call, "triples/s", settings_of(config).precision, steps * batch, steps, scores, cost, {})


def evaluation_stages(config: ConfigDict, dataset: builders.Dataset) -> list[Stage]:
    """The encoding of every entity, and the ranking of test in both directions, in full float32 as always."""
    graph, mapper = dataset.graph, builders.build_mapper(config)
    model = builders.build_model(config, graph)
    training = builders.build_training(config, model, graph, mapper)
    params, inputs = training.plan.create().params, training.inputs
    evaluator = builders.build_evaluator(config, model, dataset, mapper)
    entities, queries = len(graph.entities), 2 * len(graph.test)

    # The body of a loop counts once; in one block there is no loop. It is compiled for its cost, and never run.
    sizes: dict = dict(entities=entities, mapper=mapper, split=settings_of(config).shard_entities)
    encode = make_encode_program(model, **sizes, additions=builders.table_additions_of(config, graph))
    cost, whole = compiled(encode, params, inputs), make_encode_program(model, **sizes, block=entities)
    in_one = compiled(whole, params, inputs)
    encoding = cost._replace(flops=in_one.flops, moved=in_one.moved)

    start = time.perf_counter()
    vectors = encode(params, inputs)[0]
    width = vectors.answers.shape[-1]
    evaluator.ranks(params.model, vectors, "test")
    seconds = time.perf_counter() - start
    plan = evaluator.plan("test")
    distinct, held = plan.heads.size, -(-entities // mapper.count)
    # By formula: every distinct query against this device's entities. Scores stay in the cache.
    ranking = Compiled(
        seconds,
        flops=2.0 * distinct * held * width + 2.0 * queries * held,
        moved=4.0 * (distinct + held) * width,
        memory=4 * (plan.heads.shape[1] * min(BLOCK, held) + 2 * held * width),
    )

    def encode_all() -> None:
        jax.block_until_ready(encode(params, inputs))

    def rank() -> None:
        evaluator.ranks(params.model, vectors, "test")

    return [
        Stage("encode all entities", encode_all, "entities/s", "float32", entities, 1, 0, encoding, {}),
        Stage("filtered evaluation", rank, "queries/s", "float32", queries, 1, distinct * entities, ranking, {}),
    ]


def timed(stages: list[Stage], repeats: int) -> list[list[float]]:
    """Seconds a step of each stage, the first calls aside; they take turns, so that a noisy moment hits all of them."""
    seconds: list[list[float]] = [[] for _ in stages]
    for stage in stages:
        stage.call()
    for _ in range(repeats):
        for stage, own in zip(stages, seconds, strict=True):
            start = time.perf_counter()
            stage.call()
            own.append((time.perf_counter() - start) / stage.steps)
    return seconds


def row_of(stage: Stage, seconds: list[float], limits: Calibration) -> dict:
    """A stage's figures, for the table and for JSON, by the seconds a step of each repeat and one device's limits."""
    median = float(np.median(seconds))
    # CPU devices share the limits of one machine.
    shared = stage.setting["devices"] if jax.default_backend() == "cpu" else 1
    roofline = shared * limits.roofline(stage.cost.flops, stage.cost.moved)
    rate = stage.size / stage.steps / median
    return {
        "stage": stage.name,
        **stage.setting,
        "precision": stage.precision,
        "unit": stage.unit,
        "rate": rate,
        "best": stage.size / stage.steps / min(seconds),
        "scores/s": stage.candidates / stage.steps / median if stage.candidates else None,
        "ms": 1e3 * median,
        "ms p95": 1e3 * float(np.percentile(seconds, 95)),
        "compile s": stage.cost.seconds,
        "GFLOP": stage.cost.flops / 1e9,
        "GB moved": stage.cost.moved / 1e9,
        "GB held": stage.cost.memory / 1e9,
        "roofline ms": 1e3 * roofline,
        "share": roofline / median,
    }
