"""Answers to queries, computed by compiled programs in batches of a few fixed shapes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.method.mocme import EntityVectors, MoCME, Params
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.parallel.mesh import ROWS, Mapper
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.compiled_queries import Tables
from mocme_jax.serving.known_facts import Facts
from mocme_jax.serving.top_candidates import Best, pairs_of

# Batch sizes. The first that holds the remaining queries is used.
BATCHES = (1, 16, 256)


@dataclasses.dataclass(frozen=True)
class Served:
    """A trained model in the form that the compiled programs take, on one device.

    Attributes:
      model: the module.
      params: the parameters.
      inputs: the encoder's inputs.
      tables: all entities, encoded.
      facts: known triples.
      added: the number of entities added after training, which are the last ones.
    """

    model: MoCME
    params: Params
    inputs: Inputs
    tables: Tables
    facts: Facts
    added: int = 0

    @property
    def scorer(self) -> tuple[MoCME, Any, Tables]:
        """The first arguments of the programs that score: the model, its variables and the encoded entities."""
        return self.model, self.params.model, self.tables


class Completions(NamedTuple):
    """Answers to Q queries.

    Attributes:
      ids: int32 ``[Q, k]``, best first; -1 if there are fewer.
      scores: float32 ``[Q, k]``.
      log_totals: float64 ``[Q]``, the log of the sum of exp(sharpness * score) over the candidates that are not known.
      others: int64 ``[Q]``, the number of these candidates.
    """

    ids: np.ndarray
    scores: np.ndarray
    log_totals: np.ndarray
    others: np.ndarray


def in_batches(call: Callable[[Any], Any], rows: Any) -> Any:
    """Call a function on batches of rows of a few sizes, and join its results on the host.

    Args:
      call: ``(rows [B, ...]) -> results [B, ...]``, trees of arrays.
      rows: a tree of arrays ``[n, ...]``. A batch is padded with copies of its first row, which are cut off afterwards.

    Returns:
      The results as a tree of NumPy arrays ``[n, ...]``.
    """
    count, start, found = len(jax.tree.leaves(rows)[0]), 0, []
    # Without rows, a batch of zeros gives the shapes of the results.
    while start < count or not found:
        size = next((size for size in BATCHES if size >= count - start), BATCHES[-1])
        part, kept = slice(start, start + size), min(size, count - start)
        result = jax.device_get(call(jax.tree.map(lambda x: filled(np.asarray(x[part]), size), rows)))  # noqa: B023
        found.append(jax.tree.map(lambda x: x[:kept], result))  # noqa: B023
        start += size
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Pad rows ``[n, ...]`` to ``[size, ...]`` with copies of the first, or with zeros if there is none."""
    first = rows[:1] if len(rows) else np.zeros((1, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, np.repeat(first, size - len(rows), axis=0)])


def encoded_vectors(served: Served, mapper: Mapper) -> EntityVectors:
    """Return the encoded entities as an evaluator takes them, on the devices of a mapper."""
    tables = served.tables.questions, served.tables.answers
    rows = [np.asarray(table).reshape(-1, table.shape[-1])[: served.facts.num_entities] for table in tables]
    return mapper.place(EntityVectors(*rows), EntityVectors(ROWS, ROWS))


def complete_questions(
    served: Served,
    questions: np.ndarray,
    k: int,
    sharpness: np.ndarray,
    *,
    exclude: Sequence[str] = (),
    asked: np.ndarray | None = None,
) -> Completions:
    """Return the k best answers of each query.

    Candidates that additions rule out are left out, and a training fact does not count for itself.

    Args:
      questions: int ``[Q, 2]``, entity and relation in [0, 2R).
      k: the number of answers, at most N.
      sharpness: ``[2R]``, by relation; see ``Completions.log_totals``.
      exclude: splits whose answers are left out of the list.
      asked: int ``[Q]``, one answer per query that counts as unknown, as in filtered ranking. All other known answers
        are then left out, and ``exclude`` is ignored.
    """
    facts = served.facts
    taken = 1 << max(0, int(k - 1).bit_length())
    taken = min(taken, facts.num_entities)
    k = min(k, taken)

    def answer(given: tuple[np.ndarray, np.ndarray | None]) -> Completions:
        rows, gold = given
        size = len(rows)
        known, out = facts.no_candidates(rows), facts.additions.ruled_out(rows)
        corrections = facts.additions.corrections(*rows[known[0]].T, known[1])
        corrected = np.flatnonzero(corrections)
        added = pairs_of(known[0][corrected], known[1][corrected], size, corrections[corrected])
        if gold is not None:
            kept = known[1] != gold[known[0]]
            known = tuple(pair[kept] for pair in known)
        listed = facts.tails(exclude).pairs(rows) if gold is None else known
        # Some pairs may occur twice.
        left = map(np.concatenate, zip(listed, out, strict=True))
        best = programs.complete_questions(
            *served.scorer,
            rows,
            np.asarray(sharpness, np.float32)[rows[:, 1]],
            pairs_of(*known, size),
            pairs_of(*left, size),
            added if facts.additions.scores else None,
            k=taken,
        )
        best = jax.device_get(best)
        top = best.top.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_total = np.log(best.total) + sharpness[rows[:, 1]] * np.where(np.isfinite(top), top, 0)
        others = facts.num_entities - np.bincount(known[0], minlength=size)
        ids = np.where(np.isfinite(best.scores), best.ids, -1)
        return Completions(ids[:, :k], best.scores[:, :k], log_total, others)

    return in_batches(answer, (np.asarray(questions, np.int32), asked))


def nearest(served: Served, ids: np.ndarray, k: int) -> Best:
    """Return the k entities with the most similar encodings to each of some entities, without the entity itself."""
    table = programs.vectors_of(served.model, served.tables.questions)
    taken = min(1 << max(0, (k - 1).bit_length()), served.facts.num_entities)

    def find(rows: np.ndarray) -> Best:
        itself = pairs_of(np.arange(len(rows)), rows, len(rows))
        return programs.nearest_rows(table, served.tables.count, programs.rows_of(table, rows), itself, k=taken)

    return in_batches(find, ids)


def score_triples(served: Served, triples: np.ndarray) -> np.ndarray:
    """Score triples ``[T, 3]`` as tail queries and as head queries: float32 ``[T, 2]``."""
    call = functools.partial(programs.score_triples, *served.scorer)
    return in_batches(call, np.asarray(triples, np.int32)) + added_to_triples(served, triples)


def added_to_triples(served: Served, triples: np.ndarray) -> np.ndarray:
    """Return what additions add to the scores of triples, as tail queries and as head queries: float32 ``[T, 2]``."""
    both = reciprocal(triples, served.model.num_relations).reshape(2, -1, 3)
    return served.facts.additions.of_facts(*both.transpose(2, 1, 0))


def score_relations(served: Served, pairs: np.ndarray) -> np.ndarray:
    """Score every relation between heads and tails ``[Q, 2]``, as the mean of both directions: float32 ``[Q, R]``."""
    call = functools.partial(programs.score_relations, *served.scorer)
    scores = in_batches(call, np.asarray(pairs, np.int32))
    every = np.arange(served.model.num_relations)
    heads, tails, of_facts = pairs[:, :1], pairs[:, 1:], served.facts.additions.of_facts
    return scores + (of_facts(heads, every, tails) + of_facts(tails, every + len(every), heads)) / 2
