"""What a run of a given size needs: memory a device by part, what travels a step, and hours at a measured rate.

The training program is compiled for arrays that are never made, and its arguments, temporaries and collectives are read
off. On another kind of device only the temporaries differ.
"""

import math
import re
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mocme_jax.additions.addition import Bar
from mocme_jax.errors import UserError
from mocme_jax.measure.saved_figures import read_figures
from mocme_jax.method.mocme import Params
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.parallel.known_answers import KnownAnswers
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.held_out import HeldOut, count_held_out
from mocme_jax.training.logs.progress import make_console, results_table
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of
from mocme_jax.training.train_state import TrainData, data_spec

_COLLECTIVE = re.compile(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
_ARRAY = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


class Sizes(NamedTuple):
    """Of a graph: entities, relations, triples, and the width of each feature modality."""

    entities: int
    relations: int
    triples: int
    widths: tuple[int, ...]


class Need(NamedTuple):
    """What one device needs.

    Attributes:
      parts: bytes by part, in the order they are printed.
      collective: bytes that one device's program gives to collectives in a step.
    """

    parts: dict[str, int]
    collective: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def need(config: ConfigDict, sizes: Sizes, mapper: Mapper) -> Need:
    """Compiles the training program for a graph of those sizes, and reads off what it needs."""
    split = settings_of(config).shard_entities
    model = builders.build_model_of(config, sizes.relations, sizes.widths)
    plan, program, loss = builders.build_program(config, model, mapper, entities=sizes.entities, triples=sizes.triples)
    bars = builders.bars_of(config, np.zeros((0, 3), np.int32), sizes.relations)
    held = count_held_out(sizes.triples, loss.held)
    data = _data_shapes(sizes, held, bars, mapper, split)
    steps = mapper.placed_shapes(jax.ShapeDtypeStruct((), np.int32), WHOLE)
    compiled = program.lower(plan.shapes, data, steps).compile()
    devices, state = mapper.count if split else 1, plan.shapes
    average = state.average or Params(None, None)
    parts = {
        "entity table": _bytes(state.params.structure) // devices,
        "its optimizer state": _bytes(state.opt_state.structure) // devices,
        "its average": _bytes(average.structure) // devices,
        "features": _bytes(data.inputs) // devices,
        "other parameters, their optimizer state and average": _bytes(
            (state.params.model, state.opt_state.model, average.model)
        ),
        "triples and known answers": _bytes((data.triples, data.known, data.held)) // devices,
        "temporaries of a step": compiled.memory_analysis().temp_size_in_bytes,
    }
    if state.entropy is not None:
        parts["entropies of negatives"] = _bytes(state.entropy)
    rows = mapper.table_rows(sizes.entities, True) // mapper.count
    parts |= builders.addition_bytes(config, sizes.entities, rows, sizes.relations)
    return Need(parts, collective_bytes(compiled.as_text()) if mapper.count > 1 else 0)


def collective_bytes(program: str) -> int:
    """Bytes of the results of a compiled program's collectives."""
    total = 0
    for line in program.splitlines():
        if not _COLLECTIVE.search(line):
            continue
        for _, bits, shape in _ARRAY.findall(_COLLECTIVE.split(line.split(" = ", 1)[1])[0]):
            total += int(bits or 8) // 8 * math.prod(int(length) for length in shape.split(",") if length)
    return total


def _data_shapes(sizes: Sizes, held: int, bars: tuple[Bar, ...], mapper: Mapper, split: bool) -> TrainData:
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

    def known(triples: int, bars: tuple[Bar, ...]) -> KnownAnswers:
        facts = shape((mapper.table_rows(max(1, 2 * triples), split),), ints)
        return KnownAnswers(ends, facts, facts, nothing, nothing, ends, listed, bars)

    withheld = HeldOut(shape((held,), ints), known(held, ()))
    triples = shape((mapper.table_rows(sizes.triples, split), 3), ints)
    data = TrainData(triples, withheld, known(sizes.triples - held, bars), inputs)
    return mapper.placed_shapes(data, data_spec(split))


def _bytes(tree) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def plan(config: ConfigDict, sizes: Sizes, *, memory: float, benchmark: str | None) -> dict[int, Need]:
    """Prints and returns what each number of devices needs, up to those that this process has.

    Args:
      config, sizes: see ``need``.
      memory: of one device, in GB (10^9 bytes); the fewest devices that fit are told.
      benchmark: a file of ``benchmark --json`` whose rate of the full model is taken for the hours, or None.
    """
    console, needs, batch_size = make_console(), {}, settings_of(config).batch_size
    rate = _rate(benchmark) if benchmark else None
    for count in (1, 2, 4, 8, 16, 32, 64, 128):
        if count > jax.device_count() or batch_size % count:
            continue
        # shard_map's arrays have the shapes that are written here; pmap's hold the same bytes.
        needs[count] = need(config, sizes, Mapper("shard_map", count))
        if needs[count].total <= memory * 1e9:
            break
    last = max(needs)
    heads = {count: f"GB, {count} device{'s' * (count > 1)}" for count in needs}
    table = [
        {"part": part} | {heads[count]: f"{one.parts[part] / 1e9:.3f}" for count, one in needs.items()}
        for part in needs[last].parts
    ]
    table.append({"part": "total"} | {heads[count]: f"{one.total / 1e9:.3f}" for count, one in needs.items()})
    results_table(table, title=f"memory per device, {sizes.entities:,} entities", console=console)
    fits = needs[last].total <= memory * 1e9
    steps = -(-sizes.triples // batch_size)
    enough = ("are" if last > 1 else "is") + (" enough" if fits else " not enough")
    told = "" if fits else f"; parallel.shard_entities is {settings_of(config).shard_entities}"
    console.print(f"{last} device{'s' * (last > 1)} of {memory:g} GB {enough}{told}", soft_wrap=True)
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
