"""Known true answers of every query, and both directions of a triple as queries.

A query is ``(entity, relation)`` with ``relation`` in ``[0, 2R)``: ``r + R`` is the inverse of ``r``, so
that asking for a head is asking for the answer of the inverse relation.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mocme_jax.data.graph.triple_keys import pieces


def reciprocal(triples: np.ndarray, num_relations: int) -> np.ndarray:
    """Both directions of each triple ``[T, 3]`` of R relations as queries with their answers.

    Returns:
      int32 ``[2T, 3]``, columns entity, relation, answer. The first T rows predict tails, ``(h, r) -> t``;
      the next T predict heads, ``(t, r + R) -> h``, in the same order.
    """
    head, relation, tail = np.asarray(triples, np.int32).reshape(-1, 3).T
    forward = np.stack([head, relation, tail], axis=1)
    backward = np.stack([tail, relation + np.int32(num_relations), head], axis=1)
    return np.concatenate([forward, backward])


@dataclasses.dataclass(frozen=True)
class KnownTails:
    """Every known answer of every query, in compressed sparse rows over the G distinct queries.

    Attributes:
      keys: int64 ``[G]``, sorted: ``entity * 2R + relation``.
      offsets: int64 ``[G + 1]``; the answers of group g are ``tails[offsets[g]:offsets[g + 1]]``.
      tails: int32 ``[K]``, distinct and ascending within a group.
      num_entities, num_relations: N and R.
    """

    keys: np.ndarray
    offsets: np.ndarray
    tails: np.ndarray
    num_entities: int
    num_relations: int

    def lookup(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each query's answers lie in `tails`.

        Args:
          queries: int ``[Q, 2]`` (or more columns, which are ignored): entity, relation in ``[0, 2R)``.

        Returns:
          Starts and counts, int64 ``[Q]`` each; 0 and 0 for a query that no triple answers.
        """
        queries = np.asarray(queries, np.int64)
        wanted = queries[:, 0] * (2 * self.num_relations) + queries[:, 1]
        group = np.searchsorted(self.keys, wanted)
        found = np.append(self.keys, -1)[group] == wanted
        counts = np.append(np.diff(self.offsets), 0)[group]
        return np.where(found, self.offsets[group], 0), np.where(found, counts, 0)

    def pairs(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every known answer of the queries ``[Q, 2]``: int64 positions in `queries`, ascending, and int32 entities."""
        starts, counts = self.lookup(queries)
        rows = np.repeat(np.arange(len(starts)), counts)
        first = np.cumsum(counts) - counts
        return rows, self.tails[np.arange(len(rows)) - first[rows] + starts[rows]]


def known_tails(
    triples_list: Sequence[np.ndarray], num_entities: int, num_relations: int, asked: np.ndarray | None = None
) -> KnownTails:
    """Collects the known answers of all the splits, in both directions, each once.

    Args:
      triples_list: int ``[T_i, 3]`` arrays of head, relation, tail, such as train, valid and test.
      num_entities, num_relations: N and R.
      asked: int ``[Q, 2]`` (or more columns, which are ignored): the only queries wanted; None for all.

    Raises:
      ValueError: an id lies outside the graph.
    """
    keep = None
    if asked is not None:
        wanted = np.unique(asked[:, 0].astype(np.int64) * (2 * num_relations) + asked[:, 1])

        def keep(entity, relation):
            keys = entity * (2 * num_relations) + relation
            return np.append(wanted, -1)[np.searchsorted(wanted, keys)] == keys

    facts = distinct_facts(triples_list, num_entities, num_relations, keep)
    group_of_fact, tails = np.divmod(facts, max(num_entities, 1))
    starts = np.flatnonzero(np.diff(group_of_fact, prepend=-1))
    offsets = np.append(starts, len(tails)).astype(np.int64)
    return KnownTails(group_of_fact[starts], offsets, tails.astype(np.int32), num_entities, num_relations)


def distinct_facts(
    triples_list: Sequence[np.ndarray],
    num_entities: int,
    num_relations: int,
    keep: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Both directions of all triples as queries with their answers, sorted, each once and as one number.

    Triples are read in pieces, so that memory-mapped ones are never held as a whole.

    Args:
      triples_list, num_entities, num_relations: as for `known_tails`.
      keep: ``(entity, relation) -> bool``, int64 ``[n]`` each, which queries are wanted; None for all.

    Returns:
      int64 ``[K]``: ``(entity * 2R + relation) * N + answer``.
    """
    found = [np.zeros(0, np.int64)]
    for triples in triples_list:
        for piece in pieces(triples):
            _check_ids(piece, (num_entities, num_relations, num_entities))
            entity, relation, answer = reciprocal(piece, num_relations).astype(np.int64).T
            if keep is not None:
                wanted = keep(entity, relation)
                entity, relation, answer = entity[wanted], relation[wanted], answer[wanted]
            found.append((entity * (2 * num_relations) + relation) * num_entities + answer)
    # One integer a fact: a single sort both groups and deduplicates, eight times as fast as np.unique.
    facts = np.sort(np.concatenate(found))
    return facts[np.flatnonzero(np.diff(facts, prepend=-1))]


def _check_ids(triples: np.ndarray, limits: tuple[int, int, int]) -> None:
    for column, limit in enumerate(limits):
        low, high = triples[:, column].min(), triples[:, column].max()
        if low < 0 or high >= limit:
            raise ValueError(f"column {column} of the triples contains ids {low} to {high}, not within [0, {limit})")
