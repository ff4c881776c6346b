"""What a run of a given size needs: memory per device and per host, collectives per step, hours at a measured rate.

The programs of training and evaluation are compiled for arrays that are never made. Their arguments, temporaries and
collectives are read off. On another kind of device only the temporaries differ.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mocme_jax.additions.addition import Bar
from mocme_jax.errors import UserError
from mocme_jax.evaluation.evaluation_plan import CHUNK_FIELDS, MOST_ROWS
from mocme_jax.evaluation.ranking import ENCODED, Ranker
from mocme_jax.measure.host_memory import SAVING, Need, bytes_of, host_need
from mocme_jax.measure.throughput import read_figures
from mocme_jax.method.mocme import EntityVectors, MoCME, Params
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.parallel.known_answers import KnownAnswers
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.entity_encoding import Unencoded, block_source, make_encode_program
from mocme_jax.training.logs.progress import make_console, results_table
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import schedule_of, settings_of
from mocme_jax.training.train_state import TrainData, data_spec

STEP, EVALUATION, TEST = "a training step", "an evaluation and a save", "the test at the end"

_COLLECTIVE = re.compile(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
_ARRAY = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


# Known answers per query in an evaluation, with which its memory is estimated.
_KNOWN = 64


class Sizes(NamedTuple):
    """Numbers of a graph: entities, relations, training triples, the width of each modality, evaluated triples."""

    entities: int
    relations: int
    triples: int
    widths: tuple[int, ...]
    evaluated: int = 1000


def need(config: ConfigDict, sizes: Sizes, mapper: Mapper) -> Need:
    """Compile the programs of training and evaluation for a graph of these sizes, and read off what they need."""
    split = settings_of(config).shard_entities
    model = builders.build_model_of(config, sizes.relations, sizes.widths)
    plan, program = builders.build_program(config, model, mapper, entities=sizes.entities, triples=sizes.triples)
    bars = builders.bars_of(config, np.zeros((0, 3), np.int32), sizes.relations)
    data = _data_shapes(sizes, bars, mapper, split)
    steps = mapper.placed_shapes(jax.ShapeDtypeStruct((), np.int32), WHOLE)
    compiled = program.lower(plan.shapes, data, steps).compile()
    devices, state = mapper.count if split else 1, plan.shapes
    average = state.average or Params(None, None)
    parts = {
        "entity table": bytes_of(state.params.structure) // devices,
        "its optimizer state": bytes_of(state.opt_state.structure) // devices,
        "its average": bytes_of(average.structure) // devices,
        "features": bytes_of(data.inputs) // devices,
        "other parameters, their optimizer state and average": bytes_of(
            (state.params.model, state.opt_state.model, average.model)
        ),
        "triples and known answers": bytes_of((data.triples, data.known)) // devices,
    }
    if state.entropy is not None:
        parts["entropies of negatives"] = bytes_of(state.entropy)
    rows = mapper.table_rows(sizes.entities, True) // mapper.count
    parts |= builders.addition_bytes(config, sizes.entities, rows, sizes.relations)
    evaluation = _evaluation_bytes(model, sizes, mapper, state.params, data.inputs, split)
    tables = bytes_of((state.params, state.opt_state, average))
    # With pmap, a checkpoint needs the state in another shape, which is a copy of it.
    copied = tables // devices if split and settings_of(config).mapper == "pmap" else 0
    stages = {
        STEP: compiled.memory_analysis().temp_size_in_bytes,
        EVALUATION: evaluation + copied,
        # The best parameters are read while the last state is still held.
        TEST: evaluation + bytes_of(state.params) // devices,
    }
    return Need(parts, stages, collective_bytes(compiled.as_text()) if mapper.count > 1 else 0, tables, copied)


def on_cpus(device: Need, host: Need, devices: int, *, saves: bool) -> int:
    """Return the peak in bytes of a process whose devices are CPUs, and so part of the process.

    Args:
      device: what each device needs.
      host: what the process needs besides.
      devices: the number of devices.
      saves: whether saves overlap with training steps; see ``Schedule.saves_while_training``.
    """
    held = devices * sum(device.parts.values()) + sum(host.parts.values())
    step, evaluation, test = (devices * device.stages[name] for name in (STEP, EVALUATION, TEST))
    reading = max(size for name, size in host.stages.items() if name != SAVING)
    working, saving = max(step, evaluation), host.stages[SAVING]
    together = working + saving if saves else max(working, devices * device.copied + saving)
    return held + max(reading, together, test)


def _evaluation_bytes(model: MoCME, sizes: Sizes, mapper: Mapper, params: Params, inputs: Inputs, split: bool) -> int:
    """Return the bytes per device that an evaluation holds in addition to the parameters and inputs."""
    entities, shape = sizes.entities, jax.ShapeDtypeStruct
    vectors, encoding = 0, 0
    if builders.encodes_in_blocks(model, entities):
        source = block_source(model, entities=entities, devices=mapper.count, split=split)
        tables: Any = Unencoded(params.structure, inputs)
    else:
        source = ENCODED
        table = shape((mapper.table_rows(entities, True), model.vector_width), np.float32)
        tables = mapper.placed_shapes(EntityVectors(table, table), source.spec)
        program = make_encode_program(model, entities=entities, mapper=mapper, split=split)
        encoding = program.lower(params, inputs).compile().memory_analysis().temp_size_in_bytes
        vectors = bytes_of(tables) // mapper.count
    queries = min(2 * sizes.evaluated, MOST_ROWS)
    chunks = {name: shape((-(-2 * sizes.evaluated // queries), queries), np.int32) for name in CHUNK_FIELDS}
    chunks["gold_corrections"] = shape(chunks["heads"].shape, np.float32)
    for name in ("known_rows", "known_columns"):
        chunks[name] = shape((chunks["heads"].shape[0], _KNOWN * queries), np.int32)
    ranker = Ranker(
        lambda params, *asked: model.apply(params, *asked, method="query"),
        model.match,
        mapper=mapper,
        sources={Unencoded: source},
    ).lower(params.model, tables, mapper.placed_shapes(chunks, WHOLE))
    ranking = ranker.compile().memory_analysis().temp_size_in_bytes + bytes_of(chunks)
    return vectors + max(encoding, ranking)


def collective_bytes(program: str) -> int:
    """Bytes of the results of a compiled program's collectives."""
    total = 0
    for line in program.splitlines():
        if not _COLLECTIVE.search(line):
            continue
        for _, bits, shape in _ARRAY.findall(_COLLECTIVE.split(line.split(" = ", 1)[1])[0]):
            total += int(bits or 8) // 8 * math.prod(int(length) for length in shape.split(",") if length)
    return total


def _data_shapes(sizes: Sizes, bars: tuple[Bar, ...], mapper: Mapper, split: bool) -> TrainData:
    """Shapes of the data of a graph whose facts are spread evenly and whose queries have few answers each, placed."""
    entities, ints = sizes.entities, np.int32
    shape = jax.ShapeDtypeStruct
    rows = mapper.table_rows(entities, split)
    inputs = Inputs(
        tuple(shape((rows, width), np.float32) for width in sizes.widths),
        shape((rows, 1 + len(sizes.widths)), bool),
        shape((rows,), np.float32),
    )
    # One end more than rows, on every device.
    ends = shape((rows + (mapper.count if split else 1),), ints)
    nothing = shape((0,), ints)
    listed, bars = shape((mapper.table_rows(1, split),), ints), jax.tree.map(lambda x: shape(x.shape, x.dtype), bars)

    facts = shape((mapper.table_rows(max(1, 2 * sizes.triples), split),), ints)
    known = KnownAnswers(ends, facts, facts, nothing, nothing, ends, listed, bars)
    data = TrainData(shape((mapper.table_rows(sizes.triples, split), 3), ints), known, inputs)
    return mapper.placed_shapes(data, data_spec(split))


def plan(
    config: ConfigDict,
    sizes: Sizes,
    *,
    source: str,
    memory: float,
    share: float,
    processes: int,
    benchmark: str | None,
) -> dict[int, Need]:
    """Print and return what each number of devices needs, up to those that this process has.

    Args:
      config: see ``need``.
      sizes: see ``need``.
      source: the name of the config.
      memory: of one device, in GB (10^9 bytes); the fewest devices that fit are printed.
      share: the share of the memory that JAX takes; see ``device_share``.
      processes: the number of processes per node.
      benchmark: a file of ``benchmark --json`` whose rate of the full model is taken for the hours, or None.
    """
    console, needs, settings = make_console(), {}, settings_of(config)
    rate = _rate(benchmark) if benchmark else None
    usable = share * memory
    for count in (1, 2, 4, 8, 16, 32, 64, 128):
        if count > jax.device_count() or settings.batch_size % count:
            continue
        # shard_map's arrays have the shapes that are written here; pmap's hold the same bytes.
        needs[count] = need(config, sizes, Mapper("shard_map", count))
        if needs[count].total <= usable * 1e9:
            break
    last = max(needs)
    console.print(
        f"settings of {source}, width {settings.width}, batch {settings.batch_size}; "
        "--config and --config.FIELD=VALUE plan others",
        soft_wrap=True,
    )
    heads = {count: f"GB, {count} device{'s' * (count > 1)}" for count in needs}
    columns = {
        count: one.parts | {f"only during {name}": size for name, size in one.stages.items()} | {"peak": one.total}
        for count, one in needs.items()
    }
    table = [
        {"part": part} | {heads[count]: f"{rows[part] / 1e9:.3f}" for count, rows in columns.items()}
        for part in columns[last]
    ]
    results_table(table, title=f"memory per device, {sizes.entities:,} entities", console=console)
    fits = needs[last].total <= usable * 1e9
    enough = ("are" if last > 1 else "is") + (" enough" if fits else " not enough")
    told = "" if fits else f"; parallel.shard_entities is {settings.shard_entities}"
    console.print(
        f"{last} device{'s' * (last > 1)} of {memory:g} GB {enough} (JAX takes {share:.0%} of the memory){told}",
        soft_wrap=True,
    )
    host = host_need(config, sizes, needs[last].saved, processes=processes)
    rows = [{"part": name, "GB": f"{size / 1e9:.3f}"} for name, size in host.parts.items()]
    rows += [{"part": f"only while {name}", "GB": f"{size / 1e9:.3f}"} for name, size in host.stages.items()]
    rows.append({"part": "peak per process", "GB": f"{host.total / 1e9:.3f}"})
    rows.append({"part": f"peak per node of {processes}", "GB": f"{host.of_node(processes) / 1e9:.3f}"})
    results_table(rows, title="memory of the host, besides the devices", console=console)
    saves = schedule_of(config, sizes.triples).saves_while_training(rate and rate / settings.batch_size)
    if processes == 1:
        console.print(
            f"a process whose {last} device{'s are CPUs' if last > 1 else ' is a CPU'} needs "
            f"{on_cpus(needs[last], host, last, saves=saves) / 1e9:.3f} GB in all; saves "
            + ("may overlap with training steps" if saves else "do not overlap with training steps"),
            soft_wrap=True,
        )
    steps = -(-sizes.triples // settings.batch_size)
    console.print(
        f"per step: {needs[last].collective / 1e6:,.2f} MB of collectives per device; per epoch: {steps:,} steps"
        + (f", {sizes.triples / rate / 3600:.2f} hours at {rate:,.0f} triples/s (benchmark)" if rate else ""),
        soft_wrap=True,
    )
    return needs


def _rate(path: str) -> float:
    rates = [row["rate"] for row in read_figures(path)["rows"] if row["stage"] in ("train, full model", "train")]
    if not rates:
        raise UserError(f"{path}: contains no training rate; write the file with mocme_jax.benchmark --json")
    return max(rates)
