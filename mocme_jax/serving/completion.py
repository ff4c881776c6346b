"""Questions in batches of a few fixed shapes, answered by the compiled programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.cardinality import Cardinality
from mocme_jax.method.encoder import Panel
from mocme_jax.method.mocme import MoCME, Params
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.compiled_queries import Tables
from mocme_jax.serving.counted import Counted
from mocme_jax.serving.known_facts import Facts
from mocme_jax.serving.top_candidates import amounts_of, masks_of

# Questions answered at once: the first that holds what is left.
BATCHES = (1, 16, 256)


@dataclasses.dataclass(frozen=True)
class Served:
    """A trained model as the programs take it, on one device.

    Attributes:
      model, params: the module and what it learned.
      inputs: what entities carry.
      panel: encoded, as it was in training.
      tables: all entities, encoded.
      facts: what is known.
      counted: what relations' cardinality adds to scores; None: nothing.
      added: how many entities, the last ones, were added after training.
    """

    model: MoCME
    params: Params
    inputs: Inputs
    panel: Panel
    tables: Tables
    facts: Facts
    counted: Counted | None = None
    added: int = 0

    @property
    def cardinality(self) -> Cardinality:
        """Of all N entities, on the host, with a bonus of zeros where it is not counted."""
        if self.counted is not None:
            return self.counted.cardinality
        directions = 2 * self.model.num_relations
        return Cardinality(np.zeros((self.facts.num_entities, directions), np.uint8), np.zeros(directions, np.float32))


class Completions(NamedTuple):
    """Answers to Q questions.

    Attributes:
      ids: int32 ``[Q, k]``, best first; -1 where there are fewer.
      scores: float32 ``[Q, k]``.
      log_totals: float64 ``[Q]``, log of the sum over the candidates that are not known of exp(sharpness * score).
      others: int64 ``[Q]``, how many these are.
    """

    ids: np.ndarray
    scores: np.ndarray
    log_totals: np.ndarray
    others: np.ndarray


def batches(count: int) -> Iterator[tuple[slice, int]]:
    """Slices of so many rows, each with the batch size that it is filled up to."""
    start = 0
    while start < count:
        size = next((size for size in BATCHES if size >= count - start), BATCHES[-1])
        yield slice(start, min(start + size, count)), size
        start += size


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows ``[n, ...]`` filled up to ``[size, ...]`` with the first."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])


def complete_questions(
    served: Served,
    questions: np.ndarray,
    k: int,
    sharpness: np.ndarray,
    *,
    exclude: Sequence[str] = (),
    asked: np.ndarray | None = None,
) -> Completions:
    """The k best answers of each question.

    Args:
      questions: int ``[Q, 2]``, entity and relation in [0, 2R).
      k: at most N.
      sharpness: ``[2R]``, by relation; see ``Completions.log_totals``.
      exclude: splits whose answers are left out of the list.
      asked: int ``[Q]``, an answer each that counts as unknown, as in filtered ranking; all other known ones are
        left out, whatever ``exclude`` says.

    The entity that is asked about is left out where it can't be the answer.
    """
    facts = served.facts
    taken = 1 << max(0, int(k - 1).bit_length())
    taken = min(taken, facts.num_entities)
    k = min(k, taken)
    found = []
    for part, size in batches(len(questions)):
        rows = filled(np.asarray(questions[part], np.int32), size)
        known, barred = facts.no_candidates(rows), facts.barred(rows)
        if asked is not None:
            gold = filled(np.asarray(asked[part]), size)
            kept = known[1] != gold[known[0]]
            known = tuple(pair[kept] for pair in known)
            left = _both(known, barred)
        else:
            left = _both(facts.tails(exclude).pairs(rows), barred) if exclude else barred
        best = programs.complete_questions(
            served.model,
            served.params.model,
            served.tables,
            rows[:, 0],
            rows[:, 1],
            np.asarray(sharpness, np.float32)[rows[:, 1]],
            masks_of(known, left, size),
            None if served.counted is None else amounts_of(*served.counted.own(rows), size),
            k=taken,
        )
        number, best = part.stop - part.start, jax.device_get(best)
        top = best.top.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_total = np.log(best.total) + sharpness[rows[:, 1]] * np.where(np.isfinite(top), top, 0)
        others = facts.num_entities - np.bincount(known[0], minlength=size)
        ids = np.where(np.isfinite(best.scores), best.ids, -1)
        found.append((ids[:number, :k], best.scores[:number, :k], log_total[:number], others[:number]))
    return Completions(*map(np.concatenate, zip(*found, strict=True)))


def _both(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]):
    """Pairs of rows and ids, joined; some may stand twice."""
    return tuple(map(np.concatenate, zip(first, second, strict=True)))


def score_triples(served: Served, triples: np.ndarray) -> np.ndarray:
    """Scores float32 ``[T, 2]`` of triples ``[T, 3]``: asked for the tail, and asked for the head."""
    scores = [np.zeros((0, 2), np.float32)]
    for part, size in batches(len(triples)):
        rows = jnp.asarray(filled(np.asarray(triples[part], np.int32), size))
        result = programs.score_triples(served.model, served.params.model, served.tables, rows)
        scores.append(np.asarray(result)[: part.stop - part.start])
    return np.concatenate(scores) + cardinality_of_triples(served, triples)


def cardinality_of_triples(served: Served, triples: np.ndarray) -> np.ndarray:
    """What relations' cardinality adds to the scores float32 ``[T, 2]`` of triples, asked for tail and head."""
    if served.counted is None:
        return np.zeros((len(triples), 2), np.float32)
    return served.counted.of_triples(np.asarray(triples))


def score_relations(served: Served, pairs: np.ndarray) -> np.ndarray:
    """Mean scores float32 ``[Q, R]`` of every relation between heads and tails ``[Q, 2]``."""
    scores = [np.zeros((0, served.model.num_relations), np.float32)]
    for part, size in batches(len(pairs)):
        rows = filled(np.asarray(pairs[part], np.int32), size)
        result = programs.score_relations(served.model, served.params.model, served.tables, rows[:, 0], rows[:, 1])
        scores.append(np.asarray(result)[: part.stop - part.start])
    scores = np.concatenate(scores)
    if served.counted is None:
        return scores
    every = np.arange(served.model.num_relations)
    heads, tails = pairs[:, :1], pairs[:, 1:]
    forward = served.counted.bonus(heads, every, tails)
    return scores + (forward + served.counted.bonus(tails, every + len(every), heads)) / 2
