"""The class ``EvaluationPlan``: the queries of a split, cut into chunks of one shape for compiled programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mocme_jax.data.graph.known_tails import KnownTails, reciprocal

SCORE_BYTES = 32 * 2**20
BLOCK = 512
"""The number of candidates that are scored at a time."""
# Larger chunks would make the scores of a block leave the cache.
MOST_ROWS = 1024
_LEAST_ROWS = 8
# Unused positions come after every entity.
_AFTER = np.iinfo(np.int32).max

CHUNK_FIELDS = ("heads", "relations", "gold_rows", "gold_columns", "gold_corrections", "known_rows", "known_columns")


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """The queries of a split in C chunks of one shape, on the host.

    A chunk has at most B queries, G gold answers and W known answers.

    Attributes:
      queries: int32 ``[2T, 3]``, entity, relation, answer, as from ``reciprocal``: tail queries, then head queries.
      num_entities: the number of entities N.
      heads: int32 ``[C, B]``, the known entities of the queries. Unused positions repeat a query of the chunk.
      relations: int32 ``[C, B]``, the relations of the queries, in [0, 2R). Unused positions repeat a query of the
        chunk.
      gold_rows: int32 ``[C, G]``, the row of the gold answer's query in the chunk; 0 where unused.
      gold_columns: int32 ``[C, G]``, the entity of the gold answer; 0 where unused.
      gold_queries: int64 ``[C, G]``, the position of the gold answer in ``queries``; -1 where unused.
      gold_corrections: float32 ``[C, G]``, added to the score of the gold answer.
      known_rows: int32 ``[C, W]``, the query rows of the known answers to filter.
      known_columns: int32 ``[C, W]``, the entities of these known answers, ascending. Unused positions are last, with
        an entity after all others.
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

    def chunks(self) -> dict[str, np.ndarray]:
        """Return what a ranker's program reads of the chunks."""
        return {name: getattr(self, name) for name in CHUNK_FIELDS}


def plan_evaluation(
    triples: np.ndarray,
    known: KnownTails,
    *,
    chunk: int | None = None,
    score_bytes: int = SCORE_BYTES,
    corrections: np.ndarray | None = None,
    seed: int = 0,
) -> EvaluationPlan:
    """Prepare both directions of a set of triples for a ranker.

    Args:
      triples: int ``[T, 3]``, head, relation, tail. Repeated triples are ranked each time.
      known: the answers to filter, which must include these triples.
      chunk: the number of gold answers per chunk (G). None: 1,024, or as many as keep the scores within
        ``score_bytes``, but at least 8.
      score_bytes: memory for the scores of a chunk and a block of candidates, ``[B, BLOCK]``, in bytes.
      corrections: float32 ``[2T]``, added to the scores of the gold answers of both directions; None for no
        corrections. See ``Additions``.
      seed: the seed of the order in which queries are dealt to chunks. It does not affect ranks.

    Raises:
      ValueError: there are no triples, one of them is not known, or ``chunk`` is less than 1.
    """
    queries = reciprocal(triples, known.num_relations)
    if not len(queries):
        raise ValueError("no triples to evaluate")
    if chunk is None:
        chunk = min(MOST_ROWS, max(_LEAST_ROWS, score_bytes // (4 * min(BLOCK, known.num_entities))))
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    chunk = min(chunk, len(queries))

    # Gold answers of the same query are adjacent, and queries are shuffled. Otherwise queries with thousands of known
    # answers would share a few chunks, and every chunk is padded to the largest.
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
        by_column = np.argsort(pair_columns, kind="stable")
        filtered = pair_rows[by_column], pair_columns[by_column]
        chunks.append((asked[:, 0], asked[:, 1], row, answers, members, *filtered))

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
        known_rows=_stack(known_rows, max(map(len, known_rows)), 0),
        known_columns=_stack(known_columns, max(map(len, known_columns)), _AFTER),
    )


def _stack(parts: Sequence[np.ndarray], width: int, fill: int | None, dtype=np.int32) -> np.ndarray:
    """Stack rows of unequal length to ``[parts, width]``; ``fill=None`` pads a row with its first value."""
    stacked = np.empty((len(parts), width), dtype)
    for target, part in zip(stacked, parts, strict=True):
        target[: len(part)] = part
        target[len(part) :] = part[0] if fill is None else fill
    return stacked
