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

from mocme_jax.serving.calibration import Calibration
from mocme_jax.serving.completion import BATCHES, Served
from mocme_jax.serving.rated_answers import answer_entities

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


_NUMBERS = ("score", "share", "missing", "value")
_FOUND = np.dtype([("question", np.int64), ("answer", np.int32), *((name, np.float64) for name in _NUMBERS)])
"""Answers. ``question`` is the place of the query among all, and ``missing`` is how often such a query has an answer.
``value`` is ``share`` times ``missing``, by which answers are sorted."""


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

    def asked(questions: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the answers of queries by their position, and the value of the last answer of each."""
        pairs = np.stack([questions % entities, directed[questions // entities]], axis=1)
        answered = answer_entities(served, calibration, pairs, depth, exclude)
        ids = answered.ids
        some = served.facts.tails().lookup(pairs)[1] > 0
        missing = calibration.missing[pairs[:, 1], some.astype(int)]
        value = np.where(ids >= 0, answered.share * missing[:, None], -1.0)
        listed = (ids >= 0) & ((ids != pairs[:, :1]) | to_itself[pairs[:, 1] % count][:, None])
        rows, _ = at = np.nonzero(listed)
        found = np.empty(len(rows), _FOUND)
        columns = questions[rows], ids[at], answered.scores[at], answered.share[at], missing[rows], value[at]
        for name, column in zip(_FOUND.names, columns, strict=True):
            found[name] = column
        return found, value[:, -1]

    kept = np.zeros(0, _FOUND)
    # Positions of queries among all, which may be too many for memory.
    questions: range | np.ndarray = range(len(directed) * entities)
    depth = min(_FIRST, entities)
    while len(questions):
        deeper, lasts = np.zeros(0, np.int64), np.zeros(0)
        step = 4 * BATCHES[-1] if depth <= _FIRST else BATCHES[-1]
        for start in range(0, len(questions), step):
            part = np.asarray(questions[start : start + step])
            answers, last = asked(part, depth)
            kept = np.concatenate([kept[~np.isin(kept["question"], part)], answers])
            kept = kept[np.lexsort((kept["answer"], kept["question"], -kept["value"]))[:most]]
            least = max(kept["value"][-1], 0.0) if len(kept) == most else 0.0
            # Queries whose last answer is still among the best.
            deeper, lasts = np.concatenate([deeper, part]), np.concatenate([lasts, last])
            deeper, lasts = deeper[lasts >= least], lasts[lasts >= least]
            if told is not None:
                told(start + len(part), len(questions))
        questions = deeper if depth < entities else range(0)
        depth = min(depth * _MORE, entities)
    relation, entity = directed[kept["question"] // entities], kept["question"] % entities
    tails = relation < count
    columns = np.where(tails, entity, kept["answer"]), relation % count, np.where(tails, kept["answer"], entity)
    triples = np.stack(columns, axis=1).astype(np.int32)
    first = np.sort(np.unique(triples, axis=0, return_index=True)[1])[:k]
    probability = calibration.answers_curve(kept["share"][first])
    return NewTriples(triples[first], kept["score"][first], probability, probability * kept["missing"][first])
