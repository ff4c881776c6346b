"""Metrics and their groups against values worked out by hand."""

import json

import numpy as np
import pytest

from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.evaluation.metrics import (
    grouped_metrics,
    modality_patterns,
    ranking_metrics,
    relation_kinds,
)


def test_metrics_of_known_ranks():
    metrics = ranking_metrics(np.array([1, 2, 4, 10.5, 3.5]))
    assert metrics["count"] == 5
    assert metrics["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10.5 + 1 / 3.5) / 5, abs=1e-15)
    assert metrics["mr"] == pytest.approx(21 / 5)
    assert [metrics[f"hits@{k}"] for k in (1, 3, 10)] == pytest.approx([1 / 5, 2 / 5, 4 / 5])


def test_no_ranks_give_no_number():
    assert ranking_metrics(np.array([])) == {
        "count": 0, "mrr": None, "mr": None, "hits@1": None, "hits@3": None, "hits@10": None,
    }  # fmt: skip


def test_relation_kinds_follow_the_mean_number_of_partners():
    one_to_one = [(0, 0, 1), (2, 0, 3), (2, 0, 3), (2, 0, 3)]
    one_to_many = [(0, 1, tail) for tail in range(1, 5)]
    many_to_one = [(head, 2, 0) for head in range(1, 5)]
    many_to_many = [(head, 3, tail) for head in range(2) for tail in range(2)]
    exactly_threshold = [(0, 4, 1), (0, 4, 2), (3, 4, 4)]
    train = np.array(one_to_one + one_to_many + many_to_one + many_to_many + exactly_threshold)
    assert relation_kinds(train, 6) == ["1-1", "1-N", "N-1", "N-N", "1-1", None]


def test_patterns_name_what_an_entity_has():
    present = {"text": np.array([1, 1, 0, 0], bool), "numeric": np.array([1, 0, 1, 0], bool)}
    assert modality_patterns(present, 4) == ["text+numeric", "text", "numeric", "none"]


def test_groups_hold_the_right_ranks():
    train = np.array([[0, 0, 1], [1, 1, 2], [0, 1, 2]])
    test = np.array([[0, 0, 2], [3, 1, 1]])
    queries = reciprocal(test, 2)
    ranks = np.array([1, 2, 4, 8.0])  # (0, r0) -> 2, (3, r1) -> 1, (2, r0^-1) -> 0, (1, r1^-1) -> 3
    groups = grouped_metrics(
        ranks,
        queries,
        relations=["likes", "knows"],
        train=train,
        present={"text": np.array([0, 1, 1, 0], bool)},
        num_entities=4,
    )
    means = {group: {value: row["mr"] for value, row in rows.items()} for group, rows in groups.items()}
    assert means == {
        "direction": {"head": 6, "tail": 1.5},
        "relation": {"knows": 5, "likes": 2.5},
        "relation_kind": {"1-1": 2.5, "N-1": 5},
        "answer_modalities": {"none": 6, "text": 1.5},
        "answer_seen": {"seen": pytest.approx(7 / 3), "unseen": 8},
        "query_entity_seen": {"seen": pytest.approx(13 / 3), "unseen": 2},
        "two_entities": {"joined": 2.5, "not joined": 5},
    }
    for rows in groups.values():
        assert sum(row["count"] for row in rows.values()) == 4
    assert json.loads(json.dumps(groups)) == groups


def test_triples_are_grouped_by_what_train_says_of_their_two_entities():
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, [12, 3, 12], (count, 3)) for count in (60, 80))
    known = {tuple(map(int, row)) for row in train}
    ends = {frozenset((head, tail)) for head, _, tail in known}
    words = [
        "triple in train" if (h, r, t) in known else "joined" if frozenset((h, t)) in ends else "not joined"
        for h, r, t in test.tolist()
    ]
    ranks = np.arange(1.0, 161)
    found = grouped_metrics(
        ranks, reciprocal(test, 3), relations=["a", "b", "c"], train=train, present={}, num_entities=12
    )["two_entities"]
    assert len(set(words)) == 3
    assert {name: row["mr"] for name, row in found.items()} == {
        word: pytest.approx(np.mean([rank for rank, one in zip(ranks, 2 * words, strict=True) if one == word]))
        for word in set(words)
    }


def test_a_wrong_number_of_ranks_is_refused():
    with pytest.raises(ValueError, match="3 ranks for 2 queries"):
        grouped_metrics(
            np.ones(3),
            np.zeros((2, 3), int),
            relations=["r"],
            train=np.zeros((1, 3)),
            present={},
            num_entities=1,
        )
