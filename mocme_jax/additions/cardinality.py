"""Cardinality: a score bonus for candidates that have answered the relation in train.

A person has one birthplace, and a city is the birthplace of many people. So a person answers only one query of the kind
"who was born in this city?". Training cannot teach this: the person is a negative of nearly all other such queries, but
so is every other entity. Therefore the bonus is computed from counts in train.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.additions.addition import ScoreAddition
from mocme_jax.data.graph.triple_keys import distinct_triples


class Cardinality(ScoreAddition):
    """Counts of N entities as answers of 2R relations, and the bonus of each relation.

    Attributes:
      rows: uint8 ``[N, 2R]``, the number of training triples whose answer the entity is; 2 means two or more.
      whole: float32 ``[2R]``, the bonus, added to the score of entities that have answered another query.
    """

    @property
    def title(self) -> str:
        """The name in explanations."""
        return "relation's cardinality"

    def adjust(self, scores: jax.Array, relations: jax.Array) -> jax.Array:
        """Add the bonus of each candidate; see ``ScoreAddition``."""
        queries = relations.shape[0]
        # An exported program is made for any number of queries.
        if not isinstance(queries, int) or queries < len(self.whole):
            return scores + jnp.where(jnp.take(self.rows, relations, axis=1).T > 0, self.whole[relations][:, None], 0)
        # With many queries, it is faster to compute the bonus of every relation once and to look it up per query.
        bonus = jnp.where(self.rows.T > 0, self.whole[:, None], 0)
        return scores + jnp.take(bonus, relations, axis=0, mode="clip")

    def of_facts(self, relations: np.ndarray, answers: np.ndarray, trained: np.ndarray | bool) -> np.ndarray:
        """Return the bonus of each answer that has answered another query; see ``ScoreAddition``.

        A training triple does not count for itself: another triple must show that the entity has answered the relation.
        """
        return np.where(self.rows[answers, relations] > trained, self.whole[relations], np.float32(0))

    def extended(self, triples: np.ndarray, entities: int) -> Cardinality:
        """Return the addition with new counts and the same bonus."""
        keys, counts = count_answers(triples, len(self.whole) // 2)
        return self._replace(rows=_table(keys, counts, entities, len(self.whole)))


def find_cardinality(train: np.ndarray, entities: int, relations: int, weight: float) -> Cardinality:
    """Count answers in train, and compute the bonus: the log odds that a triple's answer also answers another triple.

    Each triple is left out in turn and compared with the others, like a missing triple. Half a triple of either kind is
    added to the counts (Jeffreys' prior of a proportion).

    Args:
      train: int ``[T, 3]``.
      entities: the number of entities N.
      relations: the number of relations R.
      weight: the factor of the log odds in a score.
    """
    keys, counts = count_answers(train, relations)
    relation = keys % (2 * relations)
    once = np.bincount(relation[counts == 1], minlength=2 * relations)
    triples = np.bincount(relation, counts, 2 * relations)
    log_odds = np.log((triples - once + 0.5) / (once + 0.5))
    return Cardinality(_table(keys, counts, entities, 2 * relations), (weight * log_odds).astype(np.float32))


def count_answers(triples: np.ndarray, relations: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the distinct triples that each entity answers, per relation, where there are any.

    Args:
      triples: int ``[T, 3]``.
      relations: the number of relations R.

    Returns:
      int64 ``[K]``, ``entity * 2R + relation`` in ascending order, and the counts, int ``[K]``.
    """
    heads, relation, tails = distinct_triples(triples).T.astype(np.int64)
    keys = np.concatenate([tails * (2 * relations) + relation, heads * (2 * relations) + relation + relations])
    return np.unique(keys, return_counts=True)


def _table(keys: np.ndarray, counts: np.ndarray, entities: int, directions: int) -> np.ndarray:
    """Return the counts, at most 2, as uint8 ``[N, 2R]``: the only array of this size, which a large graph feels."""
    table = np.zeros(entities * directions, np.uint8)
    table[keys] = np.minimum(counts, 2)
    return table.reshape(entities, directions)


def memory(entities: int, relations: int) -> int:
    """Return the bytes on a device that holds the rows of this many entities."""
    return entities * 2 * relations
