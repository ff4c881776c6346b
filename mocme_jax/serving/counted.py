"""What relations' cardinality adds to scores, on the host, where a fact does not count for itself.

A training triple's answer has answered the relation before by that triple alone, as often as not. Asked for it, it must
not be held against it.
"""

from __future__ import annotations

import numpy as np

from mocme_jax.additions.cardinality import Cardinality, count_answers
from mocme_jax.data.graph.known_tails import known_tails, reciprocal


class Counted:
    """The cardinality of a graph's relations with the triples that it was counted from.

    Args:
      cardinality: of N entities and 2R relations.
      triples: int ``[T, 3]``, those that were counted.
    """

    def __init__(self, cardinality: Cardinality, triples: np.ndarray):
        self.cardinality = cardinality
        self._triples = triples
        entities, directions = cardinality.times.shape
        self._tails = known_tails([triples], entities, directions // 2)
        # One number a fact, sorted.
        self._facts = np.repeat(self._tails.keys, np.diff(self._tails.offsets)) * entities + self._tails.tails

    def extended(self, triples: np.ndarray, entities: int) -> Counted:
        """The same with so many entities, and triples ``[T, 3]`` that count too; what a relation adds stays."""
        together = np.concatenate([self._triples, triples.astype(np.int32)])
        times = count_answers(together, entities, self.cardinality.times.shape[1] // 2)
        return Counted(self.cardinality._replace(times=np.minimum(times, 2).astype(np.uint8)), together)

    def bonus(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Added to the scores of answers to questions (entity, relation in [0, 2R)), float32 of the common shape."""
        entities, relations, answers = np.broadcast_arrays(entities, relations, answers)
        count, directions = self.cardinality.times.shape
        wanted = (np.asarray(entities, np.int64) * directions + relations) * count + answers
        place = np.minimum(np.searchsorted(self._facts, wanted), max(len(self._facts) - 1, 0))
        itself = self._facts[place] == wanted if len(self._facts) else np.zeros(wanted.shape, bool)
        others = self.cardinality.times[answers, relations] > itself
        return np.where(others, self.cardinality.bonus[relations], np.float32(0))

    def of_triples(self, triples: np.ndarray) -> np.ndarray:
        """Added to the scores float32 ``[T, 2]`` of triples asked for their tail and for their head."""
        both = reciprocal(triples, self.cardinality.times.shape[1] // 2).reshape(2, -1, 3)
        return self.bonus(*both.transpose(2, 1, 0))

    def own(self, questions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What was added to known answers for answering that very question ``[Q, 2]``, and no other.

        Returns:
          Positions in ``questions``, entities, and float32 amounts to add.
        """
        rows, ids = self._tails.pairs(questions)
        relations = questions[rows, 1]
        alone = self.cardinality.times[ids, relations] == 1
        return rows[alone], ids[alone], -self.cardinality.bonus[relations[alone]]
