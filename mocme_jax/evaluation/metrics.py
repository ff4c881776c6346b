"""Ranking metrics over all queries and over groups of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mocme_jax.data.graph.splits import clean_rows, joined_rows
from mocme_jax.data.graph.triple_keys import distinct_triples

HITS = (1, 3, 10)
KIND_THRESHOLD = 1.5


def ranking_metrics(ranks: np.ndarray) -> dict[str, Any]:
    """Compute mean reciprocal rank, mean rank and Hits@k, in float64.

    Args:
      ranks: ``[Q]``; 1 is best, and realistic ranks may end in .5.

    Returns:
      ``count`` (Q), ``mrr``, ``mr``, and ``hits@1``, ``hits@3`` and ``hits@10`` in [0, 1]. Without queries, the metrics
      are None.
    """
    ranks = np.asarray(ranks, np.float64)
    if not len(ranks):
        return {"count": 0, "mrr": None, "mr": None} | {f"hits@{k}": None for k in HITS}
    hits = {f"hits@{k}": float((ranks <= k).mean()) for k in HITS}
    return {"count": len(ranks), "mrr": float((1 / ranks).mean()), "mr": float(ranks.mean())} | hits


def mean_and_margin(values: np.ndarray) -> tuple[float, float | None]:
    """Compute the mean of a value per query, and half the width of its 95% confidence interval.

    The two queries of a triple count as one observation. The interval is normal and treats triples as independent.
    Triples that share an entity are not, so the true interval is somewhat wider.

    Args:
      values: ``[2T]``: the tail queries of T triples, then their head queries.

    Returns:
      The mean, and half the width of the interval; None instead of the latter for fewer than two triples.
    """
    observed = np.asarray(values, np.float64).reshape(2, -1).mean(axis=0)
    margin = 1.96 * float(observed.std(ddof=1)) / len(observed) ** 0.5 if len(observed) > 1 else None
    return float(observed.mean()), margin


def relation_kinds(train: np.ndarray, num_relations: int) -> list[str | None]:
    """Classify relations as ``1-1``, ``1-N``, ``N-1`` or ``N-N``; None if train does not have the relation.

    A side is N if the mean number of distinct tails per head (or heads per tail) in train exceeds 1.5, the rule of
    Bordes et al. 2013, "Translating Embeddings for Modeling Multi-relational Data".

    Args:
      train: int ``[T, 3]``, head, relation, tail; repeated triples count once.
      num_relations: the number of relations R.
    """
    head, relation, tail = distinct_triples(np.asarray(train).reshape(-1, 3)).T
    triples = np.bincount(relation, minlength=num_relations)
    # One number per pair sorts many times faster than np.unique over rows.
    heads, tails = (
        np.bincount(np.unique(end * np.int64(num_relations) + relation) % num_relations, minlength=num_relations)
        for end in (head, tail)
    )
    return [
        f"{'N' if count > KIND_THRESHOLD * tail else '1'}-{'N' if count > KIND_THRESHOLD * head else '1'}"
        if count
        else None
        for count, head, tail in zip(triples, heads, tails, strict=True)
    ]


def modality_patterns(present: Mapping[str, np.ndarray], num_entities: int) -> list[str]:
    """Return the modalities of each entity as text, such as ``text+numeric``, or ``none``.

    Args:
      present: bool ``[N]`` by modality name, in the order of the names in the text.
      num_entities: the number of entities N.
    """
    words = [[name for name, mask in present.items() if mask[entity]] for entity in range(num_entities)]
    return ["+".join(names) or "none" for names in words]


def grouped_metrics(
    ranks: np.ndarray,
    queries: np.ndarray,
    *,
    relations: Sequence[str],
    train: np.ndarray,
    present: Mapping[str, np.ndarray],
    num_entities: int,
) -> dict[str, dict[str, dict]]:
    """Compute ``ranking_metrics`` for each group of queries, for several groupings.

    Args:
      ranks: float ``[2T]``, in the order of ``queries``.
      queries: int ``[2T, 3]``, entity, relation in [0, 2R), answer, as from ``reciprocal``.
      relations: R names. Both directions of a relation belong to it.
      train: int ``[*, 3]``, head, relation, tail.
      present: bool ``[N]`` by modality name, without the structure.
      num_entities: the number of entities N.

    Returns:
      Metrics by grouping and value, ready for JSON. Groupings: ``direction`` (tail, head), ``relation`` (by name),
      ``relation_kind`` (1-1, 1-N, N-1, N-N of the triple in either direction; ``not in train``), ``answer_modalities``
      (the modalities of the answer), ``answer_seen`` and ``query_entity_seen`` (seen, unseen: whether train has the
      entity), ``two_entities`` (``joined``: a training triple of another relation or direction has the same two
      entities; ``not joined``; ``triple in train``: the triple itself is there). Only values that occur are listed.

    Raises:
      ValueError: the numbers of ranks and queries differ.
    """
    ranks = np.asarray(ranks, np.float64)
    queries = np.asarray(queries)
    if len(ranks) != len(queries):
        raise ValueError(f"{len(ranks)} ranks for {len(queries)} queries")
    entity, directed, answer = queries.T
    num_relations = len(relations)
    relation = directed % num_relations
    kinds = [kind or "not in train" for kind in relation_kinds(train, num_relations)]
    patterns = modality_patterns(present, num_entities)
    seen = np.zeros(num_entities, bool)
    train = np.asarray(train).reshape(-1, 3)
    seen[train[:, [0, 2]]] = True
    triples = queries[: len(queries) // 2]
    joined = np.where(clean_rows(triples, train), joined_rows(triples, train), 2)
    groups = {
        "direction": _labels(directed >= num_relations, ("tail", "head")),
        "relation": np.asarray(relations, object)[relation],
        "relation_kind": np.asarray(kinds, object)[relation],
        "answer_modalities": np.asarray(patterns, object)[answer],
        "answer_seen": _labels(seen[answer], ("unseen", "seen")),
        "query_entity_seen": _labels(seen[entity], ("unseen", "seen")),
        "two_entities": np.tile(_labels(joined, ("not joined", "joined", "triple in train")), 2),
    }
    return {group: _by_label(ranks, labels) for group, labels in groups.items()}


def _labels(flags: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    return np.asarray(names, object)[flags.astype(np.int64)]


def _by_label(ranks: np.ndarray, labels: np.ndarray) -> dict[str, dict]:
    values, group = np.unique(labels.astype(str), return_inverse=True)
    return {str(value): ranking_metrics(ranks[group == index]) for index, value in enumerate(values)}
