"""Initial vectors of the structure expert that the caller gives, instead of random ones."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.data.graph.entity_names import entity_finder, tell_left_out
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.method.mocme import MoCME, Params
from mocme_jax.training.checkpoints.run_position import START_PART

PARTS = ("entities", "relations")


class Table(NamedTuple):
    """Initial rows of a table.

    Attributes:
      rows: float32 ``[n, d]``.
      given: bool ``[n]``, whether the row is given; the others are random.
    """

    rows: Any
    given: Any


class Start(NamedTuple):
    """The initial vectors of the structure expert.

    Attributes:
      entities: rows ``[N, d]``.
      relations: rows ``[2R, d_r]``; row r + R is the reciprocal relation of r.
    """

    entities: Table
    relations: Table

    def parts(self) -> dict[str, str]:
        """Return the SHA-256 (hex) of each table with given rows, by its name in messages."""
        return {
            f"{START_PART}{name}": hashlib.sha256(table.rows.tobytes() + table.given.tobytes()).hexdigest()
            for name, table in zip(PARTS, self, strict=True)
            if table.given.any()
        }


def make_start(
    given: Mapping[str, Any], graph: KnowledgeGraph, model: MoCME, notify: Callable[[str], None] = print
) -> Start:
    """Check initial vectors against a graph and a model.

    Args:
      given: ``entities``, and optionally ``relations``. Each is an array with one row per entity ``[N, d]`` or relation
        ``[R, d_r]`` in the order of the ids, or vectors by name; other vectors are random. The rows of reciprocal
        relations follow from those of the relations; an array ``[2R, d_r]`` gives both.
      graph: the graph.
      model: the model; d is its width, d_r the width of its relation rows.
      notify: called with one line if names are not in the graph.

    Raises:
      UserError: a key, shape or width is wrong, a value is not finite, or no name is in the graph.
    """
    if not isinstance(given, Mapping) or "entities" not in given or not given.keys() <= set(PARTS):
        told = f"{', '.join(map(repr, given))}" if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise UserError(f"start: expected {{'entities': ...}} and optionally 'relations', found {told or 'nothing'}")
    score, width = model.score, model.encoder.width
    entities = _table("entities", given["entities"], graph.entities, width, notify)
    count, own = len(graph.relations), score.relation_width(width, model.core_width)
    values = given.get("relations")
    if values is None:
        return Start(entities, Table(np.zeros((2 * count, own), np.float32), np.zeros(2 * count, bool)))
    if not isinstance(values, Mapping) and np.shape(values)[:1] == (2 * count,):
        both = [*graph.relations, *(f"reciprocal of {name}" for name in graph.relations)]
        return Start(entities, _table("relations", values, both, own, notify))
    rows, there = _table("relations", values, graph.relations, own, notify)
    if score.reciprocal is None:
        raise UserError(
            f"start relations: for model.score={score.name} the vectors of reciprocal relations cannot be derived; "
            f"give an array [{2 * count}, {own}] whose row r + {count} is the reciprocal of relation r"
        )
    both_rows = np.concatenate([rows, np.asarray(score.reciprocal(rows), np.float32)])
    return Start(entities, Table(both_rows, np.concatenate([there, there])))


def begun(params: Params, start: Start) -> Params:
    """Replace the given rows in initial parameters. Columns of other experts do not change."""
    inner = params.model["params"]
    table = _with_rows(params.structure, start.entities)
    model = params.model | {"params": inner | {"relation": _with_rows(inner["relation"], start.relations)}}
    return Params(model, table)


def _with_rows(table: jax.Array, start: Table) -> jax.Array:
    """Replace the given rows of a table. The structure is the first expert, so its columns are the first."""
    count, width = start.rows.shape
    rows = jnp.where(start.given[:, None], start.rows, table[:count, :width])
    return table.at[:count, :width].set(rows)


def _table(kind: str, values: Any, names: Sequence[str], width: int, notify: Callable[[str], None]) -> Table:
    where = f"start {kind}"
    if isinstance(values, Mapping):
        if not values:
            raise UserError(f"{where}: is empty; leave it out, or give vectors")
        find = entity_finder(names)
        places = {key: find(str(key)) for key in values}
        missing = [(number, str(key)) for number, key in enumerate(values) if places[key] is None]
        tell_left_out(Path(where), "vectors", missing, len(values), notify)
        known = {key: place for key, place in places.items() if place is not None}
        found = {place: _array(f"{where} {key!r}", values[key], (width,)) for key, place in known.items()}
        rows, given = np.zeros((len(names), width), np.float32), np.zeros(len(names), bool)
        if found:
            given[list(found)], rows[list(found)] = True, np.stack(list(found.values()))
    else:
        rows, given = _array(where, values, (len(names), width)), np.ones(len(names), bool)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(
            f"{where}: the vector of {names[bad[0]][:60]!r} contains a value that is not finite; give vectors by name, "
            "and leave out those to initialise at random"
        )
    return Table(rows, given)


def _array(where: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.asarray(values)
        if np.iscomplexobj(array):
            raise UserError(
                f"{where}: contains complex numbers; give numpy.concatenate([x.real, x.imag], axis=-1), or for the "
                "relations of rotate numpy.angle(x)"
            )
        array = array.astype(np.float32)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: is not an array of numbers ({error})") from error
    if array.shape != shape:
        rows = "the model's width" if len(shape) == 1 else "one row per name, as wide as the model (model.width)"
        raise UserError(f"{where}: has shape {list(array.shape)}; expected {list(shape)}, {rows}")
    return array
