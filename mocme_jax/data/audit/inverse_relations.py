"""Relations that say the same backwards: symmetric ones, and pairs of inverses.

A test triple whose reverse is in train is answered by a one-line rule, so scores on it say little; WN18RR and FB15k-237
were made to remove this flaw (Toutanova and Chen 2015; Dettmers et al. 2018).
"""

import dataclasses

import numpy as np

from mocme_jax.data.graph.triple_keys import distinct_triples, row_keys

INVERSE_SHARE = 0.5
"""From this share of reversed triples on, a relation counts as the inverse of another."""
FEWEST_REVERSED = 5
"""Pairs with fewer reversed triples are taken for chance."""


@dataclasses.dataclass(frozen=True)
class InverseRelation:
    """``share`` of the distinct triples ``(t, known, h)``, ``count`` of them, also occur as ``(h, implied, t)``."""

    known: int
    implied: int
    count: int
    share: float


def inverse_relations(
    triples: np.ndarray, *, share: float = INVERSE_SHARE, fewest: int = FEWEST_REVERSED
) -> list[InverseRelation]:
    """All directed pairs of relations of which one implies the other backwards; it may be the same one.

    Args:
      triples: int ``[T, 3]`` (head, relation, tail); duplicates and loops ``h = t`` are ignored.
      share: least share of the known relation's triples that are reversed in the implied one.
      fewest: least number of such triples.

    Returns:
      The pairs, most triples first.
    """
    triples = distinct_triples(triples)
    triples = triples[triples[:, 0] != triples[:, 2]]
    if not len(triples):
        return []
    row, partner = reversed_pairs(triples, triples)
    relations = int(triples[:, 1].max()) + 1
    pairs, counts = np.unique(row_keys((triples[row, 1], triples[partner, 1]), (relations,)), return_counts=True)
    sizes = np.bincount(triples[:, 1], minlength=relations)
    shares = counts / sizes[pairs // relations]
    found = [
        InverseRelation(int(pair // relations), int(pair % relations), int(count), float(part))
        for pair, count, part in zip(pairs, counts, shares, strict=True)
        if part >= share and count >= fewest
    ]
    return sorted(found, key=lambda pair: (-pair.count, pair.known, pair.implied))


def leaked_rows(split: np.ndarray, train: np.ndarray, inverses: list[InverseRelation]) -> np.ndarray:
    """Bool ``[T]``: the rows ``(h, r, t)`` with ``(t, known, h)`` in train for a pair (known, r)."""
    leaked = np.zeros(len(split), bool)
    if not len(split) or not len(train) or not inverses:
        return leaked
    row, partner = reversed_pairs(split, train)
    loops = split[row, 0] == split[row, 2]
    relations = int(max(split[:, 1].max(), train[:, 1].max())) + 1
    known = np.array([pair.known * relations + pair.implied for pair in inverses])
    hit = np.isin(row_keys((train[partner, 1], split[row, 1]), (relations,)), known) & ~loops
    leaked[row[hit]] = True
    return leaked


def reversed_pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All index pairs (i, j) with head and tail of ``left[i]`` the tail and head of ``right[j]``."""
    entities = int(max(ids[:, column].max() for ids in (left, right) for column in (0, 2))) + 1
    wanted = row_keys((left[:, 2], left[:, 0]), (entities,))
    there = row_keys((right[:, 0], right[:, 2]), (entities,))
    order = np.argsort(there, kind="stable")
    there = there[order]
    # Keys in ascending order are found many times faster than in any other, because of the cache.
    asked = np.argsort(wanted, kind="stable")
    wanted = wanted[asked]
    place = np.searchsorted(there, wanted)
    some = np.flatnonzero(there[np.minimum(place, len(there) - 1)] == wanted)
    some = some[np.argsort(asked[some])]
    first = place[some]
    counts = np.searchsorted(there, wanted[some], "right") - first
    row = np.repeat(asked[some], counts)
    step = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, order[np.repeat(first, counts) + step]
