"""Filtered, realistic ranks of gold answers among all entities, computed on the devices in bounded memory.

Ranks follow the filtered setting (Bordes et al. 2013) and the realistic rank (Berrendorf et al. 2020, "On the Ambiguity
of Rank-Based Evaluation"). For a gold answer with score s, among the entities that no split has as another answer of
the same query:

    rank = 1 + #(score > s) + #(score == s) / 2

There are two passes. The first scores the gold answers. The second takes the entities in blocks, and counts those that
score above each gold answer; the memory that it needs does not grow with the number of entities. Gold answers are
scored by products of the same shape as the blocks, because another expression could give another last bit. All known
answers, including the gold answer, are set to -inf by index, so the gold answer cannot tie with itself. Gold answers of
the same query share its row of scores: DB15K's test set has 14,303 distinct queries for 19,804 ranks, KVC16K's 17,227
for 45,050.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.addition import Bar, ScoreAddition, adjusted
from mocme_jax.evaluation.evaluation_plan import BLOCK, EvaluationPlan
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.device_axis import AXIS, padded_size
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper, Program
from mocme_jax.parallel.sharded_tables import held_places, take_everywhere


class EntitySource(NamedTuple):
    """Functions that return vectors of entities, for the work of one device. Each device answers for its S entities.

    Attributes:
      spec: which parts of the tables are sharded over the devices.
      rows: ``tables -> S``.
      block: ``(params, tables, first, size) -> [size, W]``, the answer vectors of this device's entities from ``first``
        on; ``size`` is static, and the block is within the S entities.
      answers: ``(params, tables, places [n]) -> [n, W]``, the answer vectors of this device's entities at some of its S
        rows.
      questions: ``(params, tables, ids [n]) -> [n, W]``, the question vectors of entities on any device; the ids are
        the same on every device.
    """

    spec: Any
    rows: Callable[[Any], int]
    block: Callable[[Any, Any, jax.Array, int], jax.Array]
    answers: Callable[[Any, Any, jax.Array], jax.Array]
    questions: Callable[[Any, Any, jax.Array], jax.Array]


ENCODED = EntitySource(
    EntityVectors(ROWS, ROWS),
    lambda vectors: len(vectors.answers),
    lambda params, vectors, first, size: jax.lax.dynamic_slice_in_dim(vectors.answers, first, size),
    lambda params, vectors, places: vectors.answers[places],
    lambda params, vectors, ids: take_everywhere(vectors.questions, ids),
)
"""The source whose tables are ``EntityVectors`` of all entities."""


# Below all scores, and above the -inf of entities that are not candidates.
_LOWEST = np.finfo(np.float32).min

SHARPNESSES = (4.0 ** np.arange(-12, 3), 2.0 ** (np.arange(-7, 8) / 4), 2.0 ** (np.arange(-7, 8) / 32))
"""Grids of score factors in the search for the tightest bound; each is around the best value of the previous one."""
# The maximum log odds of a candidate against the gold answer; sums of larger powers would overflow float32.
_MOST_NATS = 60.0

_FEWEST = 8

# Known answers of a chunk that are filtered at a time.
_KNOWN = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Ranker:
    """Ranks gold answers among all entities with compiled programs.

    Plans and parameters of the same shapes are compiled once. Matrix products run in full float32, whatever the
    device's default, unless the functions name a precision themselves.

    Attributes:
      query_fn: ``(params, entity vectors [B, d], relation ids int32 [B]) -> [B, d_q]``.
      match_fn: ``(query vectors [B, d_q], candidates [S, d]) -> scores [B, S]``; higher is better.
      mapper: the devices.
      block: the number of candidates scored at a time (S).
      scores: score additions for the N entities.
      bars: bars, which rank an entity below all others, also as a gold answer.
      sources: where the vectors of entities are, for each type of tables besides ``EntityVectors``.
    """

    query_fn: Callable[[Any, jax.Array, jax.Array], jax.Array]
    match_fn: Callable[[jax.Array, jax.Array], jax.Array]
    _: dataclasses.KW_ONLY
    mapper: Mapper
    block: int = BLOCK
    scores: Sequence[ScoreAddition] = ()
    bars: Sequence[Bar] = ()
    sources: Mapping[type, EntitySource] = dataclasses.field(default_factory=dict)
    _programs: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __call__(self, params: Any, tables: Any, plan: EvaluationPlan) -> tuple[np.ndarray, np.ndarray]:
        """Rank all N entities, sharded over the devices.

        Args:
          params: the parameters of ``query_fn``.
          tables: ``EntityVectors``, or of another type in ``sources``.
          plan: the queries.

        Returns:
          ``ranks``: float64 ``[2T]``, realistic ranks in the order of ``plan.queries``; 1 is best. ``ties``: int32
          ``[2T]``, the number of unfiltered entities that tie with the gold answer.

        Raises:
          FloatingPointError: a score is NaN or infinite.
          ValueError: the number of vectors is not N, padded to divide by the devices.
        """
        better, ties = self._count(_better_and_ties, params, tables, plan)
        return 1 + better + ties / 2, ties

    def log_probabilities(self, params: Any, tables: Any, plan: EvaluationPlan) -> np.ndarray:
        """Compute the log probabilities of gold answers in nats, float64 ``[2T]``. Arguments are as for ranks.

        The probability is a softmax of ``sharpness * score`` over the candidates of the filtered rank. The sharpness is
        one number for all queries, the one with the highest mean log probability, because scores of a model without a
        part are often overconfident. The mean plus the log of the number of candidates is then the tightest InfoNCE
        bound of this kind on the mutual information between queries and answers (van den Oord et al., 2018). No log
        probability is below about -60 minus the log of the number of entities.
        """
        best = 1.0
        # The mean is concave in the sharpness, as a log softmax is, so the optimum is next to the best value of a grid.
        for sharpness in SHARPNESSES:
            (against,) = self._count(_odds_against, params, tables, plan, np.float32(best * sharpness))
            found = -np.log1p(against.astype(np.float64))
            choice = int(found.mean(axis=0).argmax())
            best *= float(sharpness[choice])
        return found[:, choice]

    def lower(self, params: Any, tables: Any, chunks: Any) -> Any:
        """Lower the program of ranks for the shapes of its arguments, as they are placed; see ``jax.stages.Lowered``.

        ``chunks`` are shapes of what ``EvaluationPlan.chunks`` returns.
        """
        entities = self.mapper.placed_shapes(jax.ShapeDtypeStruct((), np.int32), WHOLE)
        additions = tuple(self.scores), tuple(self.bars)
        return self._program(_better_and_ties, tables).lower(params, tables, chunks, entities, additions, None)

    def _count(self, count_fn, params: Any, tables: Any, plan: EvaluationPlan, option: Any = None) -> list[np.ndarray]:
        """Sum ``count_fn`` over blocks of candidates and over devices: arrays ``[2T, ...]``.

        ``option`` is the last argument of ``count_fn``.
        """
        mapper = self.mapper
        if isinstance(tables, EntityVectors):
            rows = mapper.whole_shape(tables.answers)[0]
            if rows != padded_size(plan.num_entities, mapper.count):
                raise ValueError(f"{rows} rows of entity vectors for a plan of {plan.num_entities} entities")
        chunks = mapper.place(plan.chunks(), WHOLE)
        entities, option = mapper.place((np.int32(plan.num_entities), option), WHOLE)
        counts = self._program(count_fn, tables)(params, tables, chunks, entities, self._additions, option)
        found, finite = jax.device_get(counts)
        if not finite.all():
            raise FloatingPointError(
                f"NaN or infinite scores in {int((~finite).sum())} of {len(finite)} chunks of queries: the model has "
                "diverged"
            )
        used = plan.gold_queries >= 0
        arrays = [np.empty((len(plan.queries), *array.shape[2:]), array.dtype) for array in found]
        for target, array in zip(arrays, found, strict=True):
            target[plan.gold_queries[used]] = array[used]
        return arrays

    @functools.cached_property
    def _additions(self) -> Any:
        return self.mapper.place((tuple(self.scores), tuple(self.bars)), self._additions_spec)

    @property
    def _additions_spec(self) -> tuple:
        return tuple(addition._replace(rows=ROWS, whole=WHOLE) for addition in self.scores), WHOLE

    def _program(self, count_fn: Callable, tables: Any) -> Program:
        kind = type(tables)
        if (count_fn, kind) not in self._programs:
            source = ENCODED if kind is EntityVectors else self.sources[kind]
            body = functools.partial(_count_all, count_fn, self.query_fn, self.match_fn, source, self.block)
            spec = (WHOLE, source.spec, WHOLE, WHOLE, self._additions_spec, WHOLE)
            self._programs[count_fn, kind] = self.mapper.map(body, spec, WHOLE)
        return self._programs[count_fn, kind]


def _better_and_ties(rivals: jax.Array, golds: jax.Array, _: None) -> tuple[jax.Array, ...]:
    """Count candidates ``[G, S]`` that score above the gold answers ``[G, 1]``, and ties: int32 ``[G]`` each."""
    above, level = rivals > golds, rivals == golds
    return jnp.sum(above, axis=1, dtype=jnp.int32), jnp.sum(level, axis=1, dtype=jnp.int32)


def _odds_against(rivals: jax.Array, golds: jax.Array, sharpness: jax.Array) -> tuple[jax.Array, ...]:
    """Compute the odds against each gold answer for each sharpness: ``[G, K]``, the sums of exp(score - gold)."""
    above = rivals - golds
    odds = [jnp.sum(jnp.exp(jnp.minimum(one * above, _MOST_NATS)), axis=1) for one in sharpness]
    return (jnp.stack(odds, axis=1),)


def _count_all(count_fn, query_fn, match_fn, source, block, params, tables, chunks, entities, additions, option):
    """Process all blocks in turn; return the counts ``[C, G, ...]``, and whether all scores are finite, ``[C]``."""
    added, bars = additions
    added_rows = [addition.rows for addition in added]
    held = source.rows(tables)
    block = min(block, held)
    first = jax.lax.axis_index(AXIS).astype(jnp.int32) * held

    def score(queries, chunk, candidates, ids, rows):
        """Score the queries of a chunk and candidates, ``[B, S]``; also return whether each score is finite."""
        matched = _match_several(match_fn, queries, candidates).astype(jnp.float32)
        scores = adjusted(added, rows, matched, chunk["relations"])
        finite = jnp.isfinite(scores)
        for bar in bars:
            out = bar.ruled_out(chunk["heads"], chunk["relations"])
            scores = jnp.where(ids[None] == out[:, None], _LOWEST, scores)
        return jax.lax.optimization_barrier((scores, finite))

    def prepare(chunk):
        """Compute a chunk's query vectors ``[B, W]`` and the scores of its gold answers ``[G]``."""
        queries = query_fn(params, source.questions(params, tables, chunk["heads"]), chunk["relations"])
        # Each device scores its own gold answers; the sum is over one value and zeros.
        places = held_places(chunk["gold_columns"], held)
        parts = [jnp.pad(one, (0, -len(one) % block)).reshape(-1, block) for one in (places, chunk["gold_rows"])]

        def one(part):
            places, wanted = part
            here = places < held
            places = jnp.minimum(places, held - 1)
            rows = jax.tree.map(lambda table: table[places], added_rows)
            scores, finite = score(queries, chunk, source.answers(params, tables, places), first + places, rows)
            found = scores[wanted, jnp.arange(block)]
            return jnp.where(here, found, 0), jnp.all(finite | ~here)

        golds, finite = jax.lax.map(one, tuple(parts))
        golds = jax.lax.psum(golds.reshape(-1)[: len(places)], AXIS)
        return queries, golds + chunk["gold_corrections"], jnp.all(finite)

    def count_block(carry, number):
        # The last block starts earlier to stay within this device's rows. Repeated rows count once.
        start, low = jnp.minimum(number * block, held - block), number * block
        places = start + jnp.arange(block, dtype=jnp.int32)
        ids = first + places
        real = (places >= low) & (ids < entities)
        candidates = source.block(params, tables, start, block)
        rows = jax.tree.map(lambda table: jax.lax.dynamic_slice_in_dim(table, start, block), added_rows)

        def count_chunk(_, one):
            chunk, queries, golds, (counts, fine) = one
            scores, finite = score(queries, chunk, candidates, ids, rows)
            fine &= jnp.all(finite | ~real)
            scores = jnp.where(real, scores, -jnp.inf)
            scores = _without_known(scores, chunk, first + low, first + jnp.minimum(low + block, held), first + start)
            found = count_fn(jnp.take(scores, chunk["gold_rows"], axis=0), golds[:, None], option)
            return None, (jax.tree.map(jnp.add, counts, found), fine)

        return jax.lax.scan(count_chunk, None, (chunks, *prepared, carry))[1], None

    with jax.default_matmul_precision("highest"):
        *prepared, fine = jax.lax.map(prepare, chunks)
        golds = prepared[1]
        none = jax.eval_shape(lambda: count_fn(jnp.zeros((golds.shape[1], 1)), golds[0][:, None], option))
        counts = jax.tree.map(lambda one: jnp.zeros((len(golds), *one.shape), one.dtype), none)
        numbers = jnp.arange(-(-held // block), dtype=jnp.int32)
        (counts, fine), _ = jax.lax.scan(count_block, (counts, fine), numbers)
    return jax.lax.psum(counts, AXIS), jax.lax.pmin(fine.astype(jnp.int32), AXIS) > 0


def _match_several(match_fn, queries: jax.Array, candidates: jax.Array) -> jax.Array:
    """Score candidates, at least ``_FEWEST`` at a time.

    A product with a single candidate is fused with what is around it, and a gold answer would then differ in last bits
    from an equal entity.
    """
    missing = max(0, _FEWEST - len(candidates))
    if not missing:
        return match_fn(queries, candidates)
    several = match_fn(queries, jnp.pad(candidates, ((0, missing), (0, 0)), mode="edge"))
    return jax.lax.optimization_barrier(several)[:, : len(candidates)]


def _without_known(scores, chunk, low, high, first):
    """Set the scores ``[B, S]`` of known answers among the entities from ``low`` up to ``high`` to -inf.

    The first column belongs to the entity ``first``. Known answers are sorted by entity and read in pieces of
    ``_KNOWN``, so the cost does not grow with the known answers in other blocks.
    """
    rows, columns = chunk["known_rows"], chunk["known_columns"]
    size = min(_KNOWN, len(columns))
    if not size:
        return scores
    begin, end = jnp.searchsorted(columns, jnp.stack([low, high])).astype(jnp.int32)

    def mark(carry):
        at, scores = carry
        # The slice starts earlier at the end of the list. The scatter writes one value, so repeats are harmless.
        start = jnp.minimum(at, len(columns) - size)
        row, column = (jax.lax.dynamic_slice_in_dim(one, start, size) for one in (rows, columns))
        inside = (column >= low) & (column < high)
        row = jnp.where(inside, row, len(scores))
        return at + size, scores.at[row, column - first].set(-jnp.inf, mode="drop")

    return jax.lax.while_loop(lambda carry: carry[0] < end, mark, (begin, scores))[1]
