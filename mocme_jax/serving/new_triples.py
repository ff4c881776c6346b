"""The most probable triples of a whole graph that are not in it, found without holding all scores.

Every query (entity, relation, ?) is asked in both directions. The chance of a triple is its probability, which assumes
that the query has a missing answer, times how often a query of this relation has one (see
``calibration.missing_shares``). It estimates the probability that a sample of triples as large as dev holds the triple.
Of the two queries of a triple, the one with the larger chance counts. More answers of a query are computed only while
its last one is still among the best of all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mocme_jax.serving.calibration import Calibration, rated_answers
from mocme_jax.serving.completion import BATCHES, Served

_FIRST, _MORE = 16, 8


class NewTriples(NamedTuple):
    """Triples, most probable first.

    Attributes:
      triples: int32 ``[k, 3]``.
      scores: float64 ``[k]``, in the direction that gave the chance.
      probability: float64 ``[k]``, given that the query has a missing answer.
      chance: float64 ``[k]``; see the module.
    """

    triples: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    chance: np.ndarray


class _Found(NamedTuple):
    """Answers.

    Attributes:
      question: int64 ``[n]``, the position of the query among all.
      answer: ``[n]``, the entity.
      score: ``[n]``.
      share: ``[n]``.
      missing: ``[n]``, how often such a query has an answer.
      value: ``[n]``, share times missing, by which answers are sorted.
    """

    question: np.ndarray
    answer: np.ndarray
    score: np.ndarray
    share: np.ndarray
    missing: np.ndarray
    value: np.ndarray

    def take(self, chosen: np.ndarray) -> "_Found":
        return _Found(*(part[chosen] for part in self))


def new_triples(
    served: Served,
    calibration: Calibration,
    k: int,
    *,
    relations: Sequence[int] | None = None,
    exclude: Sequence[str] = ("train", "valid", "test"),
    told: Callable[[int, int], None] | None = None,
) -> NewTriples:
    """Find the k triples with the largest chance.

    A triple from an entity to itself counts only if the relation is known to have such triples.

    Args:
      served: the model.
      calibration: the calibration.
      k: the number of triples.
      relations: the relations to consider, in [0, R); None for all.
      exclude: splits whose triples are left out.
      told: called from time to time with the number of queries done and of all queries; again for queries of which more
        answers are computed.
    """
    entities, count = served.facts.num_entities, served.model.num_relations
    chosen = np.arange(count) if relations is None else np.unique(np.asarray(relations, np.int64))
    directed = np.concatenate([chosen, chosen + count])
    to_itself = np.zeros(count, bool)
    for triples in served.facts.splits.values():
        to_itself[triples[triples[:, 0] == triples[:, 2], 1]] = True
    # A triple may be found twice, once in each direction.
    most = 2 * k

    def asked(questions: np.ndarray, depth: int) -> tuple[_Found, np.ndarray]:
        """Return the answers of queries by their position, and the value of the last answer of each."""
        pairs = np.stack([questions % entities, directed[questions // entities]], axis=1)
        ids, scores, share, _ = rated_answers(served, calibration.answers, pairs, depth, exclude)
        some = served.facts.tails().lookup(pairs)[1] > 0
        missing = calibration.missing[pairs[:, 1], some.astype(int)]
        value = np.where(ids >= 0, share * missing[:, None], -1.0)
        listed = (ids >= 0) & ((ids != pairs[:, :1]) | to_itself[pairs[:, 1] % count][:, None])
        rows, _ = at = np.nonzero(listed)
        found = questions[rows], ids[at], scores[at].astype(np.float64), share[at], missing[rows], value[at]
        return _Found(*found), value[:, -1]

    kept = _Found(np.zeros(0, np.int64), np.zeros(0, np.int32), *(np.zeros(0) for _ in range(4)))
    # Positions of queries among all, which may be too many for memory.
    questions: range | np.ndarray = range(len(directed) * entities)
    depth = min(_FIRST, entities)
    while len(questions):
        deeper, lasts = np.zeros(0, np.int64), np.zeros(0)
        step = 4 * BATCHES[-1] if depth <= _FIRST else BATCHES[-1]
        for start in range(0, len(questions), step):
            part = np.asarray(questions[start : start + step])
            answers, last = asked(part, depth)
            others = kept.take(~np.isin(kept.question, part))
            kept = _Found(*map(np.concatenate, zip(others, answers, strict=True)))
            kept = kept.take(np.lexsort((kept.answer, kept.question, -kept.value))[:most])
            least = max(kept.value[-1], 0.0) if len(kept.value) == most else 0.0
            # Queries whose last answer is still among the best.
            deeper, lasts = np.concatenate([deeper, part]), np.concatenate([lasts, last])
            deeper, lasts = deeper[lasts >= least], lasts[lasts >= least]
            if told is not None:
                told(start + len(part), len(questions))
        questions = deeper if depth < entities else range(0)
        depth = min(depth * _MORE, entities)
    return _triples(kept, directed, entities, count, calibration, k)


def _triples(
    kept: _Found, directed: np.ndarray, entities: int, count: int, calibration: Calibration, k: int
) -> NewTriples:
    asked, relation = kept.question % entities, directed[kept.question // entities]
    tails = relation < count
    columns = np.where(tails, asked, kept.answer), relation % count, np.where(tails, kept.answer, asked)
    triples = np.stack(columns, axis=1).astype(np.int32)
    chosen = np.sort(np.unique(triples, axis=0, return_index=True)[1])[:k]
    probability = calibration.answers_curve(kept.share[chosen])
    return NewTriples(triples[chosen], kept.score[chosen], probability, probability * kept.missing[chosen])
