"""Cardinality: adds to a candidate's score by whether it has answered the relation before.

A person has one birthplace, and a city is the birthplace of many people. Training can't teach that an answer of the
first kind serves only once: it is a negative of nearly every other query, but so is every other entity. So the program
counts it in train.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.addition import ScoreAddition
from mocme_jax.data.graph.triple_keys import distinct_triples


class Cardinality(ScoreAddition):
    """What the training triples say of N entities as answers to 2R relations.

    Attributes:
      rows: uint8 ``[N, 2R]``, how many training triples the entity is the answer of; 2 stands for more, too.
      whole: float32 ``[2R]``, the bonus: added to the score of those that have answered another query.
    """

    @property
    def title(self) -> str:
        """What an explanation calls it."""
        return "relation's cardinality"

    def adjust(self, scores: jax.Array, relations: jax.Array) -> jax.Array:
        """With the bonus of each candidate; see ``ScoreAddition``."""
        return scores + jnp.where(jnp.take(self.rows, relations, axis=1).T > 0, self.whole[relations][:, None], 0)

    def of_facts(self, relations: np.ndarray, answers: np.ndarray, trained: np.ndarray | bool) -> np.ndarray:
        """The bonus of each answer, where it has answered another query than this.

        A training triple does not count for itself: another one must show that the answer has answered the relation.
        """
        return np.where(self.rows[answers, relations] > trained, self.whole[relations], np.float32(0))

    def extended(self, triples: np.ndarray, entities: int) -> Cardinality:
        """Counted anew; the bonus stays."""
        return self._replace(rows=_capped(count_answers(triples, entities, len(self.whole) // 2)))


def find_cardinality(train: np.ndarray, entities: int, relations: int, weight: float) -> Cardinality:
    """Counts, and takes the log odds that the answer of a training triple answers another one too.

    Each triple is left out in turn and looked at with the others, as a missing one will be (half a triple of either
    kind is added, Jeffreys' prior of a share).

    Args:
      train: int ``[T, 3]``.
      entities, relations: N and R.
      weight: of the log odds in a score.
    """
    counts = count_answers(train, entities, relations)
    once, triples = np.sum(counts == 1, axis=0), np.sum(counts, axis=0)
    log_odds = np.log((triples - once + 0.5) / (once + 0.5))
    return Cardinality(_capped(counts), (weight * log_odds).astype(np.float32))


def count_answers(triples: np.ndarray, entities: int, relations: int) -> np.ndarray:
    """int32 ``[N, 2R]``: how many of the triples ``[T, 3]`` each entity is the answer of, each triple once."""
    counts = np.zeros((entities, 2 * relations), np.int32)
    heads, relation, tails = distinct_triples(triples).T
    np.add.at(counts, (tails, relation), 1)
    np.add.at(counts, (heads, relation + relations), 1)
    return counts


def _capped(counts: np.ndarray) -> np.ndarray:
    return np.minimum(counts, 2).astype(np.uint8)


def memory(entities: int, relations: int) -> int:
    """Bytes on a device that holds the rows of so many entities: one for each of their answers to a relation."""
    return entities * 2 * relations
