"""The most probable triples that nobody wrote down, of the whole graph, without holding all scores.

Every question (entity, relation, ?) is asked in both directions. A probability is given that the question has an answer
that is missing (see ``probability``); most questions have none. So a triple's chance is its probability times how often
a question of this relation has one (see ``calibration.missing_shares``): about the chance that a sample of triples as
large as dev holds it. Of its two questions, the one with the larger chance counts.

Chances of a question's answers sum to no more than the question's own: only a few of them can be among the best of all,
and a question is asked for more answers only if its last one still is.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mocme_jax.serving.calibration import Calibration
from mocme_jax.serving.completion import BATCHES, Served, complete_questions
from mocme_jax.serving.probability import Fit, shares

_FIRST, _MORE = 16, 8


class NewTriples(NamedTuple):
    """Triples, most probable first.

    Attributes:
      triples: int32 ``[k, 3]``.
      scores: float64 ``[k]``, in the direction that gave the chance.
      probability, chance: float64 ``[k]``; see above.
      asked_for_tail: bool ``[k]``, which direction that was.
    """

    triples: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    chance: np.ndarray
    asked_for_tail: np.ndarray


class _Found(NamedTuple):
    """Answers: ``question int64 [n]`` (its place among all), ``answer``, ``score``, ``share``.

    Attributes:
      missing: how often such a question has an answer.
      value: share times that, which is what they are sorted by.
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
    """The k triples with the largest chance.

    A triple from an entity to itself counts only where the relation is known to have such.

    Args:
      k: how many.
      relations: those to look at, in [0, R); None for all.
      exclude: splits whose triples are left out.
      told: called with questions asked and questions in all, now and then.
    """
    entities, count = served.facts.num_entities, served.model.num_relations
    chosen = np.arange(count) if relations is None else np.unique(np.asarray(relations, np.int64))
    directed = np.concatenate([chosen, chosen + count])
    to_itself = np.zeros(count, bool)
    for triples in served.facts.splits.values():
        to_itself[triples[triples[:, 0] == triples[:, 2], 1]] = True
    total = len(directed) * entities
    kept = _Found(np.zeros(0, np.int64), np.zeros(0, np.int32), *(np.zeros(0) for _ in range(4)))
    # A triple may be found twice, once in each direction.
    most = 2 * k
    deeper = np.zeros(0, np.int64), np.zeros(0)

    def asked(questions: np.ndarray, depth: int) -> tuple[_Found, np.ndarray]:
        """Answers to questions by their place, and the value of the last answer that each was asked for."""
        pairs = np.stack([questions % entities, directed[questions // entities]], axis=1)
        fits = calibration.answers
        found = complete_questions(served, pairs, depth, fits.sharpness, exclude=exclude)
        fit = Fit(*(value[pairs[:, 1], None] for value in fits))
        known = served.facts.where(pairs[:, :1], pairs[:, 1:], found.ids)
        there = found.ids >= 0
        share = shares(
            np.where(there, found.scores, 0),
            found.log_totals[:, None],
            found.others[:, None],
            fit,
            counted=known < 0,
        )
        some = served.facts.tails().lookup(pairs)[1] > 0
        missing = calibration.missing[pairs[:, 1], some.astype(int)]
        value = np.where(there, share * missing[:, None], -1.0)
        listed = there & ((found.ids != pairs[:, :1]) | to_itself[pairs[:, 1] % count][:, None])
        rows, columns = np.nonzero(listed)
        answers = _Found(
            questions[rows],
            found.ids[rows, columns],
            found.scores[rows, columns].astype(np.float64),
            share[rows, columns],
            missing[rows],
            value[rows, columns],
        )
        return answers, value[:, -1]

    def best(found: _Found) -> _Found:
        if len(found.value) <= most:
            return found
        return found.take(_order(found)[:most])

    step = 4 * BATCHES[-1]
    for start in range(0, total, step):
        questions = np.arange(start, min(start + step, total))
        answers, last = asked(questions, min(_FIRST, entities))
        kept = best(_joined(kept, answers))
        deeper = np.concatenate([deeper[0], questions]), np.concatenate([deeper[1], last])
        deeper = _still_open(deeper, kept, most)
        if told is not None:
            told(min(start + step, total), total)
    depth = _FIRST
    while len(deeper[0]) and depth < entities:
        depth = min(depth * _MORE, entities)
        questions, kept = deeper[0], kept.take(~np.isin(kept.question, deeper[0]))
        deeper = np.zeros(0, np.int64), np.zeros(0)
        for start in range(0, len(questions), BATCHES[-1]):
            part = questions[start : start + BATCHES[-1]]
            answers, last = asked(part, depth)
            kept = best(_joined(kept, answers))
            deeper = np.concatenate([deeper[0], part]), np.concatenate([deeper[1], last])
        deeper = _still_open(deeper, kept, most)
    return _triples(kept, directed, entities, count, calibration, k)


def _order(found: _Found) -> np.ndarray:
    return np.lexsort((found.answer, found.question, -found.value))


def _joined(first: _Found, second: _Found) -> _Found:
    return _Found(*map(np.concatenate, zip(first, second, strict=True)))


def _still_open(deeper: tuple, kept: _Found, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The questions whose last answer would still be among the best."""
    least = kept.value.min() if len(kept.value) >= most else 0.0
    still = deeper[1] >= max(least, 0.0)
    return deeper[0][still], deeper[1][still]


def _triples(kept, directed, entities, count, calibration, k) -> NewTriples:
    kept = kept.take(_order(kept))
    asked, relation = kept.question % entities, directed[kept.question // entities]
    tails = relation < count
    triples = np.stack(
        [np.where(tails, asked, kept.answer), relation % count, np.where(tails, kept.answer, asked)], axis=1
    )
    _, first = np.unique(triples, axis=0, return_index=True)
    chosen = np.sort(first)[:k]
    probability = calibration.answers_curve(kept.share[chosen])
    return NewTriples(
        triples[chosen].astype(np.int32),
        kept.score[chosen],
        probability,
        probability * kept.missing[chosen],
        tails[chosen],
    )
