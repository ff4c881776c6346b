"""Which candidates are known to be true, looked up within the compiled step.

The training facts lie with the entity that is asked about, and may be split by rows of entities over the devices. A
query with few known answers lists them. A query with many (a hub: who is male?) is listed at each of its answers
instead, since few hubs have any one entity among their answers: so the cost of a step depends on the facts that its
batch and its candidates take part in, never on the number of entities.
"""

from __future__ import annotations

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
_WORD = 32


class KnownAnswers(NamedTuple):
    """Training facts of N entities, or of this device's S, in both directions: relations in [0, 2R).

    Attributes:
      first: int32 ``[S + 1]``; entity e's facts are those from ``first[e]`` to ``first[e + 1]``.
      relations, answers: int32 ``[E]``, of the facts, sorted by entity, relation and answer.
      hub_entities, hub_relations: int32 ``[H]``, the queries with many answers, sorted; whole on every device.
      listed_first: int32 ``[S + 1]``, the same as ``first`` for what follows.
      listed: int32 ``[L]``, which hubs have each entity among their answers.
      bars: what else is no negative of a query.
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
    """Which parts are split over the devices."""
    word = ROWS if split else WHOLE
    return KnownAnswers(word, word, word, WHOLE, WHOLE, word, word, WHOLE)


def entity_facts(parts: Sequence[np.ndarray], num_entities: int, num_relations: int, low: int, high: int) -> np.ndarray:
    """The facts of entities from ``low`` up to ``high``, as `distinct_facts` gives them."""
    return distinct_facts(parts, num_entities, num_relations, lambda entity, _: (entity >= low) & (entity < high))


def hub_queries(facts: np.ndarray, num_entities: int) -> np.ndarray:
    """The queries with many answers among facts, ascending, int64 ``[H]``: ``entity * 2R + relation``."""
    queries, counts = np.unique(facts // max(num_entities, 1), return_counts=True)
    return queries[counts > LIST_WIDTH]


def index_known(
    facts: np.ndarray, hubs: np.ndarray, num_entities: int, num_relations: int, low: int, rows: int
) -> KnownAnswers:
    """Indexes the facts of S = ``rows`` entities from ``low`` on; rows behind the last entity have none.

    ``facts`` are of these entities at least, ``hubs`` of all entities.
    """
    directions = 2 * num_relations
    span = np.searchsorted(facts, np.array([low, low + rows], np.int64) * directions * num_entities)
    query, answer = np.divmod(facts[slice(*span)], max(num_entities, 1))
    entity, relation = np.divmod(query, directions)
    # A fact read backwards: who else has this entity as an answer.
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
    """Which columns hold a known true answer of each query (the one that is asked for among them), or are ruled out.

    Args:
      known: from `index_known`, whole or this device's.
      entities, relations: int32 ``[Q]``, the queries, the same on every device.
      columns: int32 ``[n]``, this device's.
      wanted: bool ``[n]``, columns that matter; in others, marks may be missing. Of columns that hold the same entity
        only the first can be wanted.
      everything: whether this device's columns are the entities whose facts it holds, in their order, and fillings.

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
    # The entities' owners mark, for the columns of all devices, and bits of the marks travel.
    filled = -len(columns) % _WORD
    ids, wanted = (gathered(jnp.pad(array, (0, filled))) for array in (columns, wanted))
    marks = _by_columns(known, hubs, held_places(ids, len(known.first) - 1), wanted)
    words = _packed(marks).reshape(len(hubs), -1, (len(columns) + filled) // _WORD)
    own = summed_share(jnp.swapaxes(words, 0, 1).reshape(-1, words.shape[-1]))
    return mask | _unpacked(own)[:, : len(columns)]


def count_known(known: KnownAnswers, entities: jax.Array, relations: jax.Array, *, split: bool) -> jax.Array:
    """How many answers of each query train knows, int32 ``[Q]``; arguments as in ``known_columns``."""
    low, high = _listed_at(known, entities, relations, split)
    return jax.lax.psum(high - low, AXIS) if split else high - low


def _listed_at(known, entities, relations, split) -> tuple[jax.Array, jax.Array]:
    """Where the answers of each query ``[Q]`` begin and end, as far as this device holds them."""
    rows = len(known.first) - 1
    places = held_places(entities, rows) if split else entities
    # Places that another device holds are `rows`: there, a list is empty.
    start, end = known.first[places], known.first[jnp.minimum(places + 1, rows)]
    low = _lower_bound(known.relations, start, end, relations)
    return low, _lower_bound(known.relations, low, end, relations + 1)


def _by_queries(known, entities, relations, columns, split) -> jax.Array:
    """Marks at the listed answers of queries that are no hubs."""
    low, high = _listed_at(known, entities, relations, split)
    steps = jnp.arange(LIST_WIDTH, dtype=jnp.int32)
    valid = (steps < (high - low)[:, None]) & (high - low <= LIST_WIDTH)[:, None]
    answers = known.answers[jnp.where(valid, low[:, None] + steps, 0)]
    if split:
        # Raised by one, so that 0 is none.
        answers = jax.lax.psum(jnp.where(valid, answers + 1, 0), AXIS)
        valid, answers = answers > 0, answers - 1
    order = jnp.argsort(columns, stable=True).astype(jnp.int32)
    ordered = columns[order]
    found = jnp.minimum(jnp.searchsorted(ordered, answers).astype(jnp.int32), len(columns) - 1)
    where = jnp.where(valid & (ordered[found] == answers), order[found], len(columns))
    mask = jnp.zeros((len(entities), len(columns)), bool)
    return mask.at[jnp.arange(len(entities))[:, None], where].set(True, mode="drop")


def _hubs_of(known: KnownAnswers, entities: jax.Array, relations: jax.Array) -> jax.Array:
    """The number of each query among the hubs ``[Q]``; H for the others."""
    count = len(known.hub_entities)
    nothing = jnp.zeros_like(entities)
    start = _lower_bound(known.hub_entities, nothing, nothing + count, entities)
    end = _lower_bound(known.hub_entities, start, nothing + count, entities + 1)
    place = _lower_bound(known.hub_relations, start, end, relations)
    found = (place < end) & (known.hub_relations[jnp.minimum(place, count - 1)] == relations)
    return jnp.where(found, place, count)


def _by_columns(known: KnownAnswers, hubs: jax.Array, places: jax.Array, wanted: jax.Array) -> jax.Array:
    """Marks ``[Q, n]`` at the columns that are answers of the queries' hubs ``[Q]``, as far as their facts are held.

    Columns have lists of very different length; they are read one behind the other, so many entries at a time.
    """
    size, rows = 4 * len(places), len(known.listed_first) - 1
    first = known.listed_first[places]
    counts = jnp.where(wanted, known.listed_first[jnp.minimum(places + 1, rows)] - first, 0)
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    # A hub that is asked several times is marked in the first of its rows, which is copied to the others.
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
    """The first place from ``low`` up to ``high``, ``[n]`` each, whose value is not below what is wanted.

    ``values`` is sorted within each of these stretches; ``high`` where all are below.
    """

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        below = (low < high) & (values[jnp.minimum(middle, len(values) - 1)] < wanted)
        return jnp.where(below, middle + 1, low), jnp.where(below | (low >= high), high, middle)

    return jax.lax.fori_loop(0, len(values).bit_length() + 1, halve, (low, high))[0]


def _packed(marks: jax.Array) -> jax.Array:
    """Bool ``[Q, n]`` as bits, uint32 ``[Q, n / 32]``."""
    bits = marks.reshape(len(marks), -1, _WORD).astype(jnp.uint32) << jnp.arange(_WORD, dtype=jnp.uint32)
    return jnp.sum(bits, axis=-1, dtype=jnp.uint32)


def _unpacked(words: jax.Array) -> jax.Array:
    """Bool ``[Q, 32 w]`` of bits, uint32 ``[Q, w]``."""
    bits = words[:, :, None] >> jnp.arange(_WORD, dtype=jnp.uint32)
    return (bits & 1).astype(bool).reshape(len(words), -1)
