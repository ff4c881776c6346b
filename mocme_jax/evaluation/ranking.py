"""Filtered, realistic ranks of gold answers among all entities, on the device, in bounded memory.

Bordes et al. 2013 (filtered setting); Berrendorf et al. 2020, "On the Ambiguity of Rank-Based Evaluation"
(realistic rank). For a gold answer with score s, among the entities that no split knows as another answer of
the same query:

    rank = 1 + #(score > s) + #(score == s) / 2

Three habits keep it right and quick. The gold's score is read out of the matrix it is compared with, since
the same score computed by another expression may differ in its last bit. Every known answer is then cleared
to -inf by index, the gold with the others, so that it can't tie with itself. And golds of one query share
its row of scores: DB15K's test set asks 14,303 different queries 19,804 times, KVC16K's 17,227 for 45,050.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.addition import Bar, ScoreAddition, adjusted
from mocme_jax.data.graph.known_tails import KnownTails, reciprocal
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.device_axis import AXIS, padded_size
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper
from mocme_jax.parallel.sharded_tables import held_places, take_everywhere

SCORE_BYTES = 32 * 2**20
MIN_CHUNK = 8
# A score below all others, and above that of what is no candidate at all.
_LOWEST = np.finfo(np.float32).min

Ranker = Callable[[Any, EntityVectors, "EvaluationPlan"], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """Queries cut into C chunks of one shape, on the host: at most B queries, G golds, W known answers each.

    Attributes:
      queries: int32 ``[2T, 3]``, entity, relation, answer, as `reciprocal` gives them: tails first, then
        heads.
      num_entities: N.
      heads, relations: int32 ``[C, B]``; unused places repeat a real query of the chunk.
      gold_rows, gold_columns: int32 ``[C, G]``, the gold's query in the chunk and its entity; unused places
        are 0.
      gold_queries: int64 ``[C, G]``, the gold's position in `queries`, or -1 where unused.
      gold_corrections: float32 ``[C, G]``, added to the gold's score.
      known_rows, known_columns: int32 ``[C, W]``, the answers to clear; unused places have row B, which is
        dropped.
    """

    queries: np.ndarray
    num_entities: int
    heads: np.ndarray
    relations: np.ndarray
    gold_rows: np.ndarray
    gold_columns: np.ndarray
    gold_queries: np.ndarray
    gold_corrections: np.ndarray
    known_rows: np.ndarray
    known_columns: np.ndarray


def plan_evaluation(
    triples: np.ndarray,
    known: KnownTails,
    *,
    chunk: int | None = None,
    score_bytes: int = SCORE_BYTES,
    corrections: np.ndarray | None = None,
    seed: int = 0,
) -> EvaluationPlan:
    """Prepares both directions of some triples for a ranker; once for a set of triples.

    Args:
      triples: int ``[T, 3]``, head, relation, tail. Repeated triples are ranked each time.
      known: the answers to filter, which must include these triples.
      chunk: golds ranked at a time (G), or None for as many as keep a chunk's scores within `score_bytes`.
      score_bytes: memory for the scores ``[B, N]`` of a chunk on one device, in bytes; at least 8 rows are
        taken.
      corrections: float32 ``[2T]``, added to the scores of the gold answers of both directions; None: nothing. See
        ``Additions``.
      seed: order in which queries are dealt to chunks; it changes no rank.

    Raises:
      ValueError: there are no triples, one of them is not known, or `chunk` is below 1.
    """
    queries = reciprocal(triples, known.num_relations)
    if not len(queries):
        raise ValueError("no triples to evaluate")
    if chunk is None:
        chunk = max(MIN_CHUNK, score_bytes // (4 * known.num_entities))
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    chunk = min(chunk, len(queries))

    # Golds of one query stand together, and the queries are shuffled: frequent ones, with thousands of known
    # answers, would otherwise meet in a few chunks, and every chunk is padded to the fullest.
    distinct, group = np.unique(queries[:, :2], axis=0, return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(distinct))
    order = np.argsort(place[group.reshape(-1)], kind="stable")

    chunks = []
    for start in range(0, len(order), chunk):
        members = order[start : start + chunk]
        rows_of, row = np.unique(place[group.reshape(-1)[members]], return_inverse=True)
        first = np.searchsorted(row, np.arange(len(rows_of)))
        asked = queries[members[first]]
        pair_rows, pair_columns = known.pairs(asked)
        answers = queries[members, 2]
        facts = pair_rows * known.num_entities + pair_columns
        missing = ~np.isin(row * known.num_entities + answers, facts)
        if missing.any():
            raise ValueError(f"query {queries[members[missing][0]].tolist()} is not among the known")
        chunks.append((asked[:, 0], asked[:, 1], row, answers, members, pair_rows, pair_columns))

    heads, relations, gold_rows, gold_columns, gold_queries, known_rows, known_columns = zip(*chunks, strict=True)
    width = max(map(len, heads))
    places = _stack(gold_queries, chunk, -1, np.int64)
    corrections = np.zeros(len(queries), np.float32) if corrections is None else corrections
    return EvaluationPlan(
        queries=queries,
        num_entities=known.num_entities,
        heads=_stack(heads, width, None),
        relations=_stack(relations, width, None),
        gold_rows=_stack(gold_rows, chunk, 0),
        gold_columns=_stack(gold_columns, chunk, 0),
        gold_queries=places,
        gold_corrections=np.where(places >= 0, corrections[places], np.float32(0)),
        known_rows=_stack(known_rows, max(map(len, known_rows)), width),
        known_columns=_stack(known_columns, max(map(len, known_columns)), 0),
    )


def _stack(parts: Sequence[np.ndarray], width: int, fill: int | None, dtype=np.int32) -> np.ndarray:
    """Rows of unequal length as one ``[parts, width]`` array; `fill` None repeats a row's first value."""
    stacked = np.empty((len(parts), width), dtype)
    for target, part in zip(stacked, parts, strict=True):
        target[: len(part)] = part
        target[len(part) :] = part[0] if fill is None else fill
    return stacked


def make_ranker(
    query_fn: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array],
    match_fn: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    mapper: Mapper,
    block: int = 512,
    scores: Sequence[ScoreAddition] = (),
    bars: Sequence[Bar] = (),
) -> Ranker:
    """A compiled ranker for one kind of model; plans and parameters of the same shapes never compile again.

    All matrix products run in full float32, whatever the device's default, unless the functions name a precision
    themselves.

    Args:
      query_fn: ``(params, questions [B, d], answers [B, d], relation ids int32 [B]) -> [B, d_q]``.
      match_fn: ``(query vectors [B, d_q], candidates [S, d]) -> scores [B, S]``, higher is better.
      block: candidates scored at a time (S).
      scores: what is added to scores, of the N entities.
      bars: what ranks an entity below all others, as a gold answer too.

    Returns:
      ``ranker(params, vectors, plan) -> (ranks, ties)``, which ranks the vectors' ``answers``, N rows split over the
      devices: float64 ``[2T]`` realistic ranks in the order of ``plan.queries`` (1 is best), and int32 ``[2T]`` numbers
      of unfiltered entities that tie with the gold. It raises FloatingPointError where any query gives any entity
      a NaN or infinite score, and ValueError where the vectors are not N, filled up to divide by the devices.
    """
    scores, bars = tuple(scores), tuple(bars)
    spec = tuple(addition._replace(rows=ROWS, whole=WHOLE) for addition in scores), WHOLE
    additions = mapper.place((scores, bars), spec)
    program = mapper.map(
        functools.partial(_rank_chunks, query_fn, match_fn, block),
        (WHOLE, EntityVectors(ROWS, ROWS), WHOLE, WHOLE, spec),
        WHOLE,
    )

    def ranker(params: Any, vectors: EntityVectors, plan: EvaluationPlan) -> tuple[np.ndarray, np.ndarray]:
        rows = mapper.whole_shape(vectors.answers)[0]
        if rows != padded_size(plan.num_entities, mapper.count):
            raise ValueError(f"{rows} rows of entity vectors for a plan of {plan.num_entities} entities")
        fields = ["heads", "relations", "gold_rows", "gold_columns", "gold_corrections", "known_rows", "known_columns"]
        chunks = mapper.place({field: getattr(plan, field) for field in fields}, WHOLE)
        counts = program(params, vectors, chunks, mapper.place(np.int32(plan.num_entities), WHOLE), additions)
        better, ties, finite = jax.device_get(counts)
        if not finite.all():
            raise FloatingPointError(
                f"NaN or infinite scores in {int((~finite).sum())} of {len(finite)} chunks of queries: the model has "
                "diverged"
            )
        used = plan.gold_queries >= 0
        positions = plan.gold_queries[used]
        ranks = np.empty(len(plan.queries), np.float64)
        tied = np.empty(len(plan.queries), np.int32)
        ranks[positions] = 1 + better[used] + ties[used] / 2
        tied[positions] = ties[used]
        return ranks, tied

    return ranker


def _rank_chunks(query_fn, match_fn, block, params, vectors, chunks, entities, additions):
    """All chunks in turn: better and ties, int32 ``[C, G]``, and whether all is finite, ``[C]``."""
    held = len(vectors.answers)
    num_blocks = -(-held // block)
    added, bars = additions

    def in_blocks(table):
        return jnp.pad(table, ((0, num_blocks * block - held), (0, 0))).reshape(num_blocks, block, -1)

    candidates = in_blocks(vectors.answers)
    rows = jax.tree.map(in_blocks, [addition.rows for addition in added])
    first = jax.lax.axis_index(AXIS).astype(jnp.int32) * held
    place = jnp.arange(num_blocks * block, dtype=jnp.int32)
    real = ((place < held) & (first + place < entities)).reshape(num_blocks, 1, block)

    def rank_chunk(chunk):
        questions, answers = (take_everywhere(table, chunk["heads"]) for table in vectors)
        queries = query_fn(params, questions, answers, chunk["relations"])
        gold_rows = chunk["gold_rows"]
        # What another device holds has the place behind the last of this one.
        golds_at = held_places(chunk["gold_columns"], held)
        known_at = held_places(chunk["known_columns"], held)

        def score_block(finite, one):
            candidate, is_real, rows = one
            scores = adjusted(added, rows, match_fn(queries, candidate).astype(jnp.float32), chunk["relations"])
            finite &= jnp.all(jnp.isfinite(scores) | ~is_real)
            return finite, jnp.where(is_real, scores, -jnp.inf)

        finite, scores = jax.lax.scan(score_block, jnp.array(True), (candidates, real, rows))
        for bar in bars:
            out_at = held_places(bar.ruled_out(chunk["heads"], chunk["relations"]), held)
            out_rows = jnp.where(out_at < held, jnp.arange(len(queries)), len(queries))
            scores = scores.at[out_at // block, out_rows, out_at % block].set(_LOWEST, mode="drop")
        golds_here = jnp.minimum(golds_at, held - 1)
        golds = jnp.where(golds_at < held, scores[golds_here // block, gold_rows, golds_here % block], 0)
        golds = jax.lax.psum(golds, AXIS) + chunk["gold_corrections"]
        # The scatter writes one value, so that repeated or unused places are harmless.
        known_rows = jnp.where(known_at < held, chunk["known_rows"], len(queries))
        scores = scores.at[known_at // block, known_rows, known_at % block].set(-jnp.inf, mode="drop")

        def count_block(counts, scores):
            better, ties = counts
            rivals = jnp.take(scores, gold_rows, axis=0)
            better += jnp.sum(rivals > golds[:, None], axis=1, dtype=jnp.int32)
            ties += jnp.sum(rivals == golds[:, None], axis=1, dtype=jnp.int32)
            return (better, ties), None

        zeros = jnp.zeros(golds.shape, jnp.int32)
        (better, ties), _ = jax.lax.scan(count_block, (zeros, zeros), scores)
        return better, ties, finite

    with jax.default_matmul_precision("highest"):
        better, ties, finite = jax.lax.map(rank_chunk, chunks)
    return *jax.lax.psum((better, ties), AXIS), jax.lax.pmin(finite.astype(jnp.int32), AXIS) > 0
