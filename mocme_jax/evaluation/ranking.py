"""Filtered, realistic ranks of gold answers among all entities, computed on the devices in bounded memory.

Ranks follow the filtered setting (Bordes et al. 2013) and the realistic rank (Berrendorf et al. 2020, "On the Ambiguity
of Rank-Based Evaluation"). For a gold answer with score s, among the entities that no split has as another answer of
the same query:

    rank = 1 + #(score > s) + #(score == s) / 2

The score of the gold answer is read from the matrix that it is compared with, because another expression could give
another last bit. Then all known answers, including the gold answer, are set to -inf by index, so the gold answer cannot
tie with itself. Gold answers of the same query share its row of scores: DB15K's test set has 14,303 distinct queries
for 19,804 ranks, KVC16K's 17,227 for 45,050.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.addition import Bar, ScoreAddition, adjusted
from mocme_jax.evaluation.evaluation_plan import EvaluationPlan
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.device_axis import AXIS, padded_size
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper
from mocme_jax.parallel.sharded_tables import held_places, take_everywhere

# Below all scores, and above the -inf of entities that are not candidates.
_LOWEST = np.finfo(np.float32).min

SHARPNESSES = (4.0 ** np.arange(-12, 3), 2.0 ** (np.arange(-7, 8) / 4), 2.0 ** (np.arange(-7, 8) / 32))
"""Grids of score factors in the search for the tightest bound; each is around the best value of the previous one."""
# The maximum log odds of a candidate against the gold answer; sums of larger powers would overflow float32.
_MOST_NATS = 60.0

Ranker = Callable[[Any, EntityVectors, EvaluationPlan], tuple[np.ndarray, np.ndarray]]


def make_ranker(
    query_fn: Callable[[Any, jax.Array, jax.Array], jax.Array],
    match_fn: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    mapper: Mapper,
    block: int = 512,
    scores: Sequence[ScoreAddition] = (),
    bars: Sequence[Bar] = (),
) -> Ranker:
    """Make a compiled ranker. Plans and parameters of the same shapes are compiled once.

    Matrix products run in full float32, whatever the device's default, unless the functions name a precision
    themselves.

    Args:
      query_fn: ``(params, entity vectors [B, d], relation ids int32 [B]) -> [B, d_q]``.
      match_fn: ``(query vectors [B, d_q], candidates [S, d]) -> scores [B, S]``; higher is better.
      mapper: the devices.
      block: the number of candidates scored at a time (S).
      scores: score additions for the N entities.
      bars: bars, which rank an entity below all others, also as a gold answer.

    Returns:
      ``ranker(params, vectors, plan) -> (ranks, ties)``, which ranks the N rows of ``vectors.answers``, sharded over
      the devices. ``ranks``: float64 ``[2T]``, realistic ranks in the order of ``plan.queries``; 1 is best. ``ties``:
      int32 ``[2T]``, the number of unfiltered entities that tie with the gold answer. The ranker raises
      FloatingPointError if a score is NaN or infinite, and ValueError if the number of vectors is not N, padded to
      divide by the devices.
    """
    count = _make_counter(_better_and_ties, query_fn, match_fn, mapper, block, scores, bars)

    def ranker(params: Any, vectors: EntityVectors, plan: EvaluationPlan) -> tuple[np.ndarray, np.ndarray]:
        better, ties = count(params, vectors, plan)
        return 1 + better + ties / 2, ties

    return ranker


def make_log_probabilities(
    query_fn: Callable[[Any, jax.Array, jax.Array], jax.Array],
    match_fn: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    mapper: Mapper,
    block: int = 512,
    scores: Sequence[ScoreAddition] = (),
    bars: Sequence[Bar] = (),
) -> Callable[[Any, EntityVectors, EvaluationPlan], np.ndarray]:
    """Make a compiled function like ``make_ranker``'s that returns the log probabilities of gold answers in nats.

    The probability is a softmax of ``sharpness * score`` over the candidates of the filtered rank. The sharpness is one
    number for all queries, the one with the highest mean log probability, because scores of a model without a part are
    often overconfident. The mean plus the log of the number of candidates is then the tightest InfoNCE bound of this
    kind on the mutual information between queries and answers (van den Oord et al., 2018). No log probability is below
    about -60 minus the log of the number of entities.

    Arguments are as in ``make_ranker``. The function returns float64 ``[2T]``.
    """
    count = _make_counter(_odds_against, query_fn, match_fn, mapper, block, scores, bars)

    def log_probabilities(params: Any, vectors: EntityVectors, plan: EvaluationPlan) -> np.ndarray:
        best = 1.0
        # The mean is concave in the sharpness, as a log softmax is, so the optimum is next to the best value of a grid.
        for sharpness in SHARPNESSES:
            (against,) = count(params, vectors, plan, np.float32(best * sharpness))
            found = -np.log1p(against.astype(np.float64))
            choice = int(found.mean(axis=0).argmax())
            best *= float(sharpness[choice])
        return found[:, choice]

    return log_probabilities


def _better_and_ties(rivals: jax.Array, golds: jax.Array, _: None) -> tuple[jax.Array, ...]:
    """Count candidates ``[G, S]`` that score above the gold answers ``[G, 1]``, and ties: int32 ``[G]`` each."""
    above, level = rivals > golds, rivals == golds
    return jnp.sum(above, axis=1, dtype=jnp.int32), jnp.sum(level, axis=1, dtype=jnp.int32)


def _odds_against(rivals: jax.Array, golds: jax.Array, sharpness: jax.Array) -> tuple[jax.Array, ...]:
    """Compute the odds against each gold answer for each sharpness: ``[G, K]``, the sums of exp(score - gold)."""
    above = rivals - golds
    odds = [jnp.sum(jnp.exp(jnp.minimum(one * above, _MOST_NATS)), axis=1) for one in sharpness]
    return (jnp.stack(odds, axis=1),)


def _make_counter(count_fn, query_fn, match_fn, mapper: Mapper, block: int, scores, bars) -> Callable:
    """Make ``(params, vectors, plan, option) -> arrays [2T, ...]``, which sums ``count_fn`` over all candidates.

    The sum is over blocks of candidates and over devices. ``option`` is the last argument of ``count_fn``.
    """
    scores, bars = tuple(scores), tuple(bars)
    spec = tuple(addition._replace(rows=ROWS, whole=WHOLE) for addition in scores), WHOLE
    additions = mapper.place((scores, bars), spec)
    program = mapper.map(
        functools.partial(_count_chunks, count_fn, query_fn, match_fn, block),
        (WHOLE, EntityVectors(ROWS, ROWS), WHOLE, WHOLE, spec, WHOLE),
        WHOLE,
    )

    def count(params: Any, vectors: EntityVectors, plan: EvaluationPlan, option: Any = None) -> list[np.ndarray]:
        rows = mapper.whole_shape(vectors.answers)[0]
        if rows != padded_size(plan.num_entities, mapper.count):
            raise ValueError(f"{rows} rows of entity vectors for a plan of {plan.num_entities} entities")
        fields = ["heads", "relations", "gold_rows", "gold_columns", "gold_corrections", "known_rows", "known_columns"]
        chunks = mapper.place({field: getattr(plan, field) for field in fields}, WHOLE)
        entities, option = mapper.place((np.int32(plan.num_entities), option), WHOLE)
        counts = program(params, vectors, chunks, entities, additions, option)
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

    return count


def _count_chunks(count_fn, query_fn, match_fn, block, params, vectors, chunks, entities, additions, option):
    """Process all chunks in turn; return the counts ``[C, G, ...]``, and whether all scores are finite, ``[C]``."""
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

    def count_chunk(chunk):
        queries = query_fn(params, take_everywhere(vectors.questions, chunk["heads"]), chunk["relations"])
        gold_rows = chunk["gold_rows"]
        # Entities on other devices get the position after this device's last.
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
        # The scatter writes one value, so repeated or unused positions are harmless.
        known_rows = jnp.where(known_at < held, chunk["known_rows"], len(queries))
        scores = scores.at[known_at // block, known_rows, known_at % block].set(-jnp.inf, mode="drop")

        def count_block(counts, scores):
            found = count_fn(jnp.take(scores, gold_rows, axis=0), golds[:, None], option)
            return jax.tree.map(jnp.add, counts, found), None

        none = jax.tree.map(jnp.zeros_like, count_fn(jnp.zeros((len(golds), 1)), golds[:, None], option))
        counts, _ = jax.lax.scan(count_block, none, scores)
        return counts, finite

    with jax.default_matmul_precision("highest"):
        counts, finite = jax.lax.map(count_chunk, chunks)
    return jax.lax.psum(counts, AXIS), jax.lax.pmin(finite.astype(jnp.int32), AXIS) > 0
