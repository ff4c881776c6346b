"""Test queries with the answers that the model gives: of one entity, and the best and the worst of all."""

from typing import NamedTuple

import numpy as np

from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.report.run_measurements import Measured
from mocme_jax.serving.rated_answers import answer_entities

LISTED = 5
"""Answers to a query, and queries among the best and among the worst."""
MOST_QUERIES = 3
RIGHT, KNOWN, WRONG = "right", "known", "wrong"


class Given(NamedTuple):
    """An answer that the model gives: ``mark`` is ``right``, ``known`` (train or dev holds it) or ``wrong``."""

    id: int
    label: str
    mark: str
    probability: float


class Gold(NamedTuple):
    """A right answer with its filtered rank, and whether it is among those given."""

    label: str
    rank: float
    is_given: bool


class Query(NamedTuple):
    """A test query.

    Attributes:
      entity, relation: labels.
      asks_tail: whether the tail is asked for; the head otherwise.
      answers: the first ones that the model gives.
      gold: each answer that test holds, the best ranked first.
    """

    entity: str
    relation: str
    asks_tail: bool
    answers: list[Given]
    gold: list[Gold]

    @property
    def missed(self) -> list[Gold]:
        """The right answers that are not among those given."""
        return [one for one in self.gold if not one.is_given]


def known_answers(one: Measured, pairs: np.ndarray) -> np.ndarray:
    """How many answers to each query ``[K, 2]`` train and dev hold: int ``[K]``."""
    return one.before_test.facts.tails().lookup(pairs)[1]


def queries_of(one: Measured, entity: int, most: int = MOST_QUERIES) -> list[Query]:
    """Test queries about an entity, those with fewest known answers first: many would fill the list."""
    if one.ranks is None:
        return []
    asked = _asked(one)
    about = np.unique(asked[asked[:, 0] == entity, :2], axis=0)
    found = []
    for pair in about[np.argsort(known_answers(one, about), kind="stable")][:most]:
        rows = np.flatnonzero((asked[:, :2] == pair).all(axis=1))
        found.append(_query(one, asked, rows, _given(one, pair, set(asked[rows, 2].tolist()))))
    return found


def best_queries(one: Measured, count: int = LISTED) -> list[Query]:
    """The test queries whose first answer is right, those with the highest probability first."""
    if one.ranks is None:
        return []
    right = np.flatnonzero(one.first_is_right)
    rows = right[np.argsort(-one.first_probability[right], kind="stable")][:count]
    asked = _asked(one)
    return [_query(one, asked, rows[i : i + 1], [_first(one, row, asked[row, 2])]) for i, row in enumerate(rows)]


def worst_queries(one: Measured, count: int = LISTED) -> list[Query]:
    """The test queries whose right answer ranks lowest, with the answer that comes first in place of it."""
    if one.ranks is None:
        return []
    behind = np.flatnonzero(one.ranks > 1)
    rows = behind[np.argsort(-one.ranks[behind], kind="stable")][:count]
    asked, found = _asked(one), []
    if len(rows):
        # The right answer, which is left out as well, would not come first.
        firsts = one.model.answer(asked[rows, :2], 1, exclude=tuple(one.model.graph.splits)).ids[:, 0]
        found = [
            (rows[i : i + 1], _first(one, row, first)) for i, (row, first) in enumerate(zip(rows, firsts, strict=True))
        ]
    return [_query(one, asked, row, [first]) for row, first in found]


def _asked(one: Measured) -> np.ndarray:
    """All test queries with their answers, ``[2T, 3]``, in the order of the ranks."""
    return reciprocal(np.asarray(one.model.graph.test), len(one.model.relations))


def _query(one: Measured, asked: np.ndarray, rows: np.ndarray, answers: list[Given]) -> Query:
    """One query, which stands in some rows of ``asked`` with an answer each."""
    entity, relation = asked[rows[0], :2].tolist()
    names, relations = one.model.entities.readable, one.model.relations.readable
    best_first = rows[np.argsort(one.ranks[rows], kind="stable")]
    given = {answer.id for answer in answers}
    gold = [Gold(names[asked[row, 2]], float(one.ranks[row]), asked[row, 2] in given) for row in best_first]
    return Query(names[entity], relations[relation % len(relations)], relation < len(relations), answers, gold)


def _first(one: Measured, row: int, index: int) -> Given:
    """The answer that comes first among the candidates of a row of the test queries."""
    mark = RIGHT if one.first_is_right[row] else WRONG
    return Given(int(index), one.model.entities.readable[index], mark, float(one.first_probability[row]))


def _given(one: Measured, question: np.ndarray, gold: set[int]) -> list[Given]:
    """The five answers that come first, whatever is known of them."""
    told = answer_entities(one.before_test, one.model.calibration, question[None], LISTED)
    found = []
    for index, probability, place in zip(told.ids[0].tolist(), told.probability[0], told.known[0], strict=True):
        if index >= 0:
            mark = RIGHT if index in gold else WRONG if place < 0 else KNOWN
            found.append(Given(index, one.model.entities.readable[index], mark, float(probability)))
    return found
