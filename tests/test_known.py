"""Known answers against a dictionary of sets."""

from collections import defaultdict

import numpy as np
import pytest

from mocme_jax.data.graph.known_tails import known_tails, reciprocal


def draw_triples(seed, count, num_entities, num_relations):
    rng = np.random.default_rng(seed)
    limits = [num_entities, num_relations, num_entities]
    return rng.integers(0, limits, (count, 3)).astype(np.int32)


def test_reciprocal_asks_for_tails_then_heads():
    queries = reciprocal(np.array([[4, 1, 7], [2, 0, 2]], np.int32), 3)
    assert queries.dtype == np.int32
    assert queries.tolist() == [[4, 1, 7], [2, 0, 2], [7, 4, 4], [2, 3, 2]]


def test_known_tails_match_sets_of_all_splits():
    num_entities, num_relations = 9, 2
    splits = [draw_triples(seed, count, num_entities, num_relations) for seed, count in ((0, 60), (1, 0), (2, 25))]
    splits[2] = np.concatenate([splits[2], splits[0][:7], splits[2][:3]])
    splits = [split[(split[:, [0, 2]] != 0).all(axis=1)] for split in splits]
    expected = defaultdict(set)
    for head, relation, tail in np.concatenate(splits).tolist():
        expected[head, relation].add(tail)
        expected[tail, relation + num_relations].add(head)

    known = known_tails(splits, num_entities, num_relations)
    every_query = np.array([(e, r) for e in range(num_entities) for r in range(2 * num_relations)])
    starts, counts = known.lookup(every_query)
    for (entity, relation), start, count in zip(every_query.tolist(), starts, counts, strict=True):
        assert known.tails[start : start + count].tolist() == sorted(expected[entity, relation])
    assert not counts[: 2 * num_relations].any(), "entity 0 takes part in nothing"
    assert (np.diff(known.keys) > 0).all()
    assert len(known.tails) == sum(map(len, expected.values()))


def test_pairs_list_every_answer_of_every_query():
    known = known_tails([np.array([[0, 0, 1], [0, 0, 2], [3, 0, 2]])], 4, 1)
    rows, tails = known.pairs(np.array([[2, 1], [1, 0], [0, 0], [2, 1]]))
    assert list(zip(rows.tolist(), tails.tolist(), strict=True)) == [
        (0, 0),
        (0, 3),
        (2, 1),
        (2, 2),
        (3, 0),
        (3, 3),
    ]


def test_no_triples_know_nothing():
    known = known_tails([], 4, 1)
    starts, counts = known.lookup(np.array([[3, 1], [0, 0]]))
    assert starts.tolist() == counts.tolist() == [0, 0]
    assert [len(part) for part in known.pairs(np.array([[3, 1]]))] == [0, 0]


@pytest.mark.parametrize("bad", [[4, 0, 0], [0, 1, 0], [0, 0, 4], [-1, 0, 0]])
def test_ids_outside_the_graph_are_refused(bad):
    with pytest.raises(ValueError, match="column"):
        known_tails([np.array([[0, 0, 0], bad])], 4, 1)
