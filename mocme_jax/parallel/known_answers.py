"""The lookup, inside the compiled step, of candidates that are known answers.

Training facts are stored by the known entity of the query, and may be sharded over the devices by entity. A query with
few known answers stores them as a list. A query with many (a hub, such as "who is male?") is stored at each of its
answers instead, because any one entity is an answer of few hubs. So the cost of a step depends on the facts of its
batch and its candidates, not on the number of entities.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.addition import Bar
from mocme_jax.data.graph.known_tails import distinct_facts
from mocme_jax.parallel.device_axis import AXIS, gathered, summed_share
from mocme_jax.parallel.mesh import ROWS, WHOLE
from mocme_jax.parallel.sharded_tables import held_places

# Queries with more known answers than this are hubs.
LIST_WIDTH = 32


class KnownAnswers(NamedTuple):
    """Training facts of N entities, or of this device's S, in both directions: relations are in [0, 2R).

    Attributes:
      first: int32 ``[S + 1]``. The facts of entity e are ``first[e]`` to ``first[e + 1]``.
      relations: int32 ``[E]``, of the facts, which are sorted by entity, relation and answer.
      answers: int32 ``[E]``, of the facts.
      hub_entities: int32 ``[H]``, the entities of queries with many answers, sorted; replicated on every device.
      hub_relations: int32 ``[H]``, the relations of these queries; replicated on every device.
      listed_first: int32 ``[S + 1]``, like ``first``, for ``listed``.
      listed: int32 ``[L]``, the hubs of which each entity is an answer.
      bars: rules for other candidates that are not negatives of a query.
    """

    first: jax.Array
    relations: jax.Array
    answers: jax.Array
    hub_entities: jax.Array
    hub_relations: jax.Array
    listed_first: jax.Array
    listed: jax.Array
    bars: tuple[Bar, ...] = ()


def known_spec(split: bool) -> KnownAnswers:
    """Return which parts are sharded over the devices."""
    word = ROWS if split else WHOLE
    return KnownAnswers(word, word, word, WHOLE, WHOLE, word, word, WHOLE)


def entity_facts(parts: Sequence[np.ndarray], num_entities: int, num_relations: int, low: int, high: int) -> np.ndarray:
    """Return the facts of the entities from ``low`` up to ``high`` (exclusive), in the form of ``distinct_facts``."""
    return distinct_facts(parts, num_entities, num_relations, lambda entity, _: (entity >= low) & (entity < high))


def hub_queries(facts: np.ndarray, num_entities: int) -> np.ndarray:
    """Return the queries with more than ``LIST_WIDTH`` answers, int64 ``[H]`` ascending: ``entity * 2R + relation``."""
    queries, counts = np.unique(facts // max(num_entities, 1), return_counts=True)
    return queries[counts > LIST_WIDTH]


def index_known(
    facts: np.ndarray, hubs: np.ndarray, num_entities: int, num_relations: int, low: int, rows: int
) -> KnownAnswers:
    """Index the facts of a range of entities. Rows after the last entity have no facts.

    Args:
      facts: the facts of these entities at least, from ``entity_facts``.
      hubs: the hubs of all entities, from ``hub_queries``.
      num_entities: the number of entities N.
      num_relations: the number of relations R.
      low: the first entity.
      rows: the number of entities S.
    """
    directions = 2 * num_relations
    span = np.searchsorted(facts, np.array([low, low + rows], np.int64) * directions * num_entities)
    query, answer = np.divmod(facts[slice(*span)], max(num_entities, 1))
    entity, relation = np.divmod(query, directions)
    # The reverse of a fact: which query has this entity as an answer.
    reverse = answer * directions + (relation + num_relations) % directions
    hub = np.searchsorted(hubs, reverse)
    is_hub = np.append(hubs, -1)[hub] == reverse
    edges = low + np.arange(rows + 1)
    arrays: dict[str, Any] = dict(
        first=np.searchsorted(entity, edges).astype(np.int32),
        relations=relation.astype(np.int32),
        answers=answer.astype(np.int32),
        hub_entities=(hubs // directions).astype(np.int32),
        hub_relations=(hubs % directions).astype(np.int32),
        listed_first=np.searchsorted(entity[is_hub], edges).astype(np.int32),
        listed=hub[is_hub].astype(np.int32),
    )
    return KnownAnswers(**arrays)


def known_columns(
    known: KnownAnswers,
    entities: jax.Array,
    relations: jax.Array,
    columns: jax.Array,
    wanted: jax.Array,
    *,
    split: bool,
    everything: bool,
) -> jax.Array:
    """Mark the columns that hold a known answer of each query, including its gold answer, or that are ruled out.

    Args:
      known: from ``index_known``, replicated or this device's share.
      entities: int32 ``[Q]``, the known entities of the queries, the same on every device.
      relations: int32 ``[Q]``, the relations of the queries in [0, 2R), the same on every device.
      columns: int32 ``[n]``, the entities of this device's columns.
      wanted: bool ``[n]``, the columns that matter; others may lack marks. If several columns hold the same entity,
        only the first may be wanted.
      split: whether the facts are sharded over the devices.
      everything: whether this device's columns are the entities whose facts it holds, in order, and padding.

    Returns:
      bool ``[Q, n]``.
    """
    mask = _by_queries(known, entities, relations, columns, split)
    for bar in known.bars:
        mask = mask | (columns[None] == bar.ruled_out(entities, relations)[:, None])
    if not len(known.hub_entities):
        return mask
    hubs = _hubs_of(known, entities, relations)
    if not split or everything:
        places = held_places(columns, len(known.first) - 1) if split else columns
        return mask | _by_columns(known, hubs, places, wanted)
    # The device that holds an entity marks it, for the columns of all devices. Marks are exchanged as bits.
    filled = -len(columns) % 8
    ids, wanted = (gathered(jnp.pad(array, (0, filled))) for array in (columns, wanted))
    marks = _by_columns(known, hubs, held_places(ids, len(known.first) - 1), wanted)
    bits = jnp.packbits(marks, axis=1).reshape(len(hubs), -1, (len(columns) + filled) // 8)
    own = summed_share(jnp.swapaxes(bits, 0, 1).reshape(-1, bits.shape[-1]))
    return mask | jnp.unpackbits(own, axis=1, count=len(columns)).astype(bool)


def count_known(known: KnownAnswers, entities: jax.Array, relations: jax.Array, *, split: bool) -> jax.Array:
    """Count the known answers of each query in train, int32 ``[Q]``. Arguments are as in ``known_columns``."""
    low, high = _listed_at(known, entities, relations, split)
    return jax.lax.psum(high - low, AXIS) if split else high - low


def _listed_at(known, entities, relations, split) -> tuple[jax.Array, jax.Array]:
    """Return where the answers of each query ``[Q]`` begin and end, as far as this device holds them."""
    rows = len(known.first) - 1
    places = held_places(entities, rows) if split else entities
    # Entities on other devices have the position `rows`, where the list is empty.
    start, end = known.first[places], known.first[jnp.minimum(places + 1, rows)]
    low = _lower_bound(known.relations, start, end, relations)
    return low, _lower_bound(known.relations, low, end, relations + 1)


def _by_queries(known, entities, relations, columns, split) -> jax.Array:
    """Mark the listed answers of queries that are not hubs."""
    low, high = _listed_at(known, entities, relations, split)
    steps = jnp.arange(LIST_WIDTH, dtype=jnp.int32)
    valid = (steps < (high - low)[:, None]) & (high - low <= LIST_WIDTH)[:, None]
    answers = known.answers[jnp.where(valid, low[:, None] + steps, 0)]
    if split:
        # Plus one, so that 0 means none.
        answers = jax.lax.psum(jnp.where(valid, answers + 1, 0), AXIS)
        valid, answers = answers > 0, answers - 1
    order = jnp.argsort(columns, stable=True).astype(jnp.int32)
    ordered = columns[order]
    found = jnp.minimum(jnp.searchsorted(ordered, answers).astype(jnp.int32), len(columns) - 1)
    where = jnp.where(valid & (ordered[found] == answers), order[found], len(columns))
    mask = jnp.zeros((len(entities), len(columns)), bool)
    return mask.at[jnp.arange(len(entities))[:, None], where].set(True, mode="drop")


def _hubs_of(known: KnownAnswers, entities: jax.Array, relations: jax.Array) -> jax.Array:
    """Return the number of each query among the hubs, ``[Q]``; H for queries that are not hubs."""
    count = len(known.hub_entities)
    nothing = jnp.zeros_like(entities)
    start = _lower_bound(known.hub_entities, nothing, nothing + count, entities)
    end = _lower_bound(known.hub_entities, start, nothing + count, entities + 1)
    place = _lower_bound(known.hub_relations, start, end, relations)
    found = (place < end) & (known.hub_relations[jnp.minimum(place, count - 1)] == relations)
    return jnp.where(found, place, count)


def _by_columns(known: KnownAnswers, hubs: jax.Array, places: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mark the columns that are answers of the queries' hubs ``[Q]``, if this device holds the facts: ``[Q, n]``.

    Lists of columns differ much in length. They are read one after the other, a fixed number of entries at a time.
    """
    size, rows = 4 * len(places), len(known.listed_first) - 1
    first = known.listed_first[places]
    counts = jnp.where(wanted, known.listed_first[jnp.minimum(places + 1, rows)] - first, 0)
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    # A hub with several queries is marked in its first row, which is copied to the others.
    order = jnp.argsort(hubs).astype(jnp.int32)
    ordered = hubs[order]

    def read(carry):
        done, mask = carry
        entry = done + jnp.arange(size, dtype=jnp.int32)
        column = jnp.minimum(jnp.searchsorted(ends, entry, side="right").astype(jnp.int32), len(places) - 1)
        place = first[column] + entry - (ends[column] - counts[column])
        hub = known.listed[jnp.clip(place, 0, max(len(known.listed) - 1, 0))]
        row = jnp.minimum(jnp.searchsorted(ordered, hub).astype(jnp.int32), len(hubs) - 1)
        found = (entry < ends[-1]) & (ordered[row] == hub)
        return done + size, mask.at[jnp.where(found, order[row], len(hubs)), column].set(True, mode="drop")

    mask = jnp.zeros((len(hubs), len(places)), bool)
    mask = jax.lax.while_loop(lambda carry: carry[0] < ends[-1], read, (jnp.int32(0), mask))[1]
    return mask[order[jnp.searchsorted(ordered, hubs)]]


def _lower_bound(values: jax.Array, low: jax.Array, high: jax.Array, wanted: jax.Array) -> jax.Array:
    """Return the first position from ``low`` up to ``high``, ``[n]`` each, whose value is at least ``wanted``.

    ``values`` is sorted within each range. The result is ``high`` if all values are below ``wanted``.
    """

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        below = (low < high) & (values[jnp.minimum(middle, len(values) - 1)] < wanted)
        return jnp.where(below, middle + 1, low), jnp.where(below | (low >= high), high, middle)

    return jax.lax.fori_loop(0, len(values).bit_length() + 1, halve, (low, high))[0]
