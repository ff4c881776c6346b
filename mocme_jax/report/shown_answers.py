"""The answers on the page: of entities, the best and the worst of test, and the most probable new triples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mocme_jax.countdown import Countdown
from mocme_jax.report.entity_media import EntityMedia
from mocme_jax.report.run_measurements import Measured
from mocme_jax.serving.new_triples import new_triples
from mocme_jax.serving.rated_answers import answer_entities
from mocme_jax.serving.trained_model import TrainedModel

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
    asked = one.asked
    about = np.unique(asked[asked[:, 0] == entity, :2], axis=0)
    found = []
    for pair in about[np.argsort(known_answers(one, about), kind="stable")][:most]:
        rows = np.flatnonzero((asked[:, :2] == pair).all(axis=1))
        found.append(_query(one, asked, rows, _given(one, pair, set(asked[rows, 2].tolist()))))
    return found


def best_queries(one: Measured) -> list[Query]:
    """The test queries whose first answer is right, those with the highest probability first."""
    if one.ranks is None:
        return []
    right = np.flatnonzero(one.first_is_right)
    rows = right[np.argsort(-one.first_probability[right], kind="stable")][:LISTED]
    asked = one.asked
    return [_query(one, asked, rows[i : i + 1], [_first(one, row, asked[row, 2])]) for i, row in enumerate(rows)]


def worst_queries(one: Measured, count: int = LISTED) -> list[Query]:
    """The test queries whose right answer ranks lowest, with the answer that comes first in place of it."""
    if one.ranks is None:
        return []
    behind = np.flatnonzero(one.ranks > 1)
    rows = behind[np.argsort(-one.ranks[behind], kind="stable")][:count]
    asked, found = one.asked, []
    if len(rows):
        # The right answer, which is left out as well, would not come first.
        firsts = one.model.answer(asked[rows, :2], 1, exclude=tuple(one.model.graph.splits)).ids[:, 0]
        found = [
            (rows[i : i + 1], _first(one, row, first)) for i, (row, first) in enumerate(zip(rows, firsts, strict=True))
        ]
    return [_query(one, asked, row, [first]) for row, first in found]


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


LIKELY = 20
MOST_ASKED = 50_000
"""Queries that are asked for the page."""


def relations_within(train: np.ndarray, entities: int, relations: int, most: int = MOST_ASKED) -> np.ndarray:
    """The most frequent relations that take at most ``most`` queries, two for each entity; ids ascending, or none."""
    frequent = np.argsort(-np.bincount(train[:, 1], minlength=relations), kind="stable")
    return np.sort(frequent[: most // (2 * entities)])


def likely_triples(model: TrainedModel, notify: Callable[[str], None] | None, most: int = MOST_ASKED) -> dict[str, Any]:
    """``rows`` (head, relation, tail, chance), best first, of ``asked`` relations out of ``relations``."""
    names, relations = model.entities.readable, model.relations.readable
    chosen = relations_within(np.asarray(model.graph.train), len(names), len(relations), most)
    rows = []
    if len(chosen):
        told = Countdown("queries for new triples", notify or (lambda line: None))
        found = new_triples(model.served, model.calibration, LIKELY, relations=chosen.tolist(), told=told)
        for (head, relation, tail), chance in zip(found.triples.tolist(), found.chance.tolist(), strict=True):
            rows.append((names[head], relations[relation], names[tail], chance))
    rows.sort(key=lambda row: -row[3])
    return {"rows": rows, "asked": len(chosen), "relations": len(relations)}


CHOSEN = 6
_NOTHING: Mapping[int, int] = MappingProxyType({})


def choose(
    measured: Measured, keys: Sequence[str], shown: Mapping[int, int] = _NOTHING, count: int = CHOSEN
) -> list[int]:
    """Ids of the entities asked for, or of some that test asks about, in turn from the most frequent patterns.

    Args:
      keys: names that are asked for; none for this choice. It looks at no answer.
      shown: how many kinds of files entities have, by id; those with most come first, then those with most queries,
        then those with most facts.
      count: how many.
    """
    if keys:
        return list(dict.fromkeys(measured.model.entities.ids(keys).tolist()))
    queries, facts = _queries(measured), _facts(measured)
    kinds = np.array([shown.get(index, 0) for index in range(len(facts))])
    order = np.lexsort((-facts, -np.minimum(queries, MOST_QUERIES), -kinds, queries == 0)).tolist()
    patterns, numbers = np.unique(np.asarray(measured.patterns, object).astype(str), return_counts=True)
    frequent = patterns[np.argsort(-numbers, kind="stable")].tolist()
    queues = [[i for i in order if measured.patterns[i] == pattern][:count] for pattern in frequent[:count]]
    kept = [i for turn in itertools.zip_longest(*queues) for i in turn if i is not None]
    # Those without a query or a file are taken where there are no others.
    return sorted(kept, key=lambda index: (queries[index] == 0, -kinds[index]))[:count]


def chosen_entities(measured: Measured, keys: Sequence[str], media: EntityMedia) -> list[dict[str, Any]]:
    """Of each chosen entity what it is, its files, and its first test queries with their answers.

    Args:
      keys: names that were asked for; none for the report's own choice.
      media: of the entities.
    """
    names, readable, facts = measured.model.entities.names, measured.model.entities.readable, _facts(measured)
    rows = [
        {
            "label": readable[index],
            "name": names[index],
            "facts": int(facts[index]),
            "pattern": measured.patterns[index],
            "media": media.of(index),
            "queries": queries_of(measured, index),
        }
        for index in choose(measured, keys, media.kinds())
    ]
    # Cards of one height stand beside each other.
    return sorted(rows, key=lambda row: -len(row["queries"]))


def _queries(measured: Measured) -> np.ndarray:
    """Distinct test queries about each entity whose known answers leave room for others: int ``[N]``."""
    pairs = np.unique(measured.asked[:, :2], axis=0)
    return np.bincount(pairs[known_answers(measured, pairs) < LISTED, 0], minlength=len(measured.patterns))


def _facts(measured: Measured) -> np.ndarray:
    """Training triples of each entity, at either end: int ``[N]``."""
    train = np.asarray(measured.model.graph.train)
    return np.bincount(train[:, [0, 2]].ravel(), minlength=len(measured.patterns))
