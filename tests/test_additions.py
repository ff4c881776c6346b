"""The interface of additions: others than the bundled ones, beside loops."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_ranking import alike, distmult_query, dot_match, naive_ranks, small_graph

from mocme_jax.additions.addition import Additions, ScoreAddition, changed
from mocme_jax.additions.cardinality import find_cardinality
from mocme_jax.additions.self_answers import SelfAnswers, find_self_answers
from mocme_jax.data.graph.known_tails import known_tails, reciprocal
from mocme_jax.evaluation.evaluation_plan import plan_evaluation
from mocme_jax.evaluation.ranking import Ranker
from mocme_jax.parallel.mesh import Mapper


class Popularity(ScoreAddition):
    """A score of one's own for each entity ``rows [N, 1]``, by relation ``whole [2R]``; a fact counts once less."""

    def adjust(self, scores, relations):
        return scores + self.whole[relations][:, None] * self.rows[:, 0]

    def of_facts(self, relations, answers, trained):
        return self.whole[relations] * (self.rows[answers, 0] - trained).astype(np.float32)

    def extended(self, triples, entities):
        return self._replace(rows=counts(triples, entities))


class Never(SelfAnswers):
    """Entity 3 never answers."""

    def ruled_out(self, entities, relations):
        return entities * 0 + 3


def counts(triples, entities):
    return np.bincount(triples[:, [0, 2]].ravel(), minlength=entities).astype(np.float32)[:, None]


def some_additions(train):
    whole = np.array([1, 2, 0, -1, 0, 3], np.float32)
    scores = Popularity(counts(train, 37), whole), find_cardinality(train, 37, 3, 2.0)
    scores = scores[0], scores[1]._replace(whole=np.round(scores[1].whole))  # exact in float32
    return Additions(scores, (find_self_answers(train, 3), Never(np.ones(6, bool))), train, (37, 3))


@pytest.mark.parametrize(("kind", "count"), [("none", 1), ("shard_map", 4)])
def test_the_ranker_takes_several_of_each_kind(kind, count):
    mapper = Mapper(kind, count)
    train, test, vectors, table = small_graph()
    test[:9] = train[:9]
    additions, queries = some_additions(train), reciprocal(test, 3)
    popularity, cardinality = additions.scores
    scores = ((vectors[queries[:, 0]] * table[queries[:, 1]]) @ vectors.T).astype(np.float64)
    facts = {tuple(row) for row in reciprocal(train, 3).tolist()}
    loops = {relation for entity, relation, answer in facts if entity == answer}
    for row, (entity, relation, answer) in enumerate(queries.tolist()):
        for candidate in range(37):
            # A known answer that is not asked for is filtered, whatever its score.
            own = candidate == answer and (entity, relation, candidate) in facts
            scores[row, candidate] += popularity.whole[relation] * (popularity.rows[candidate, 0] - own)
            scores[row, candidate] += (cardinality.rows[candidate, relation] > own) * cardinality.whole[relation]
            if candidate == 3 or (candidate == entity and relation not in loops):
                scores[row, candidate] = -1e9
    scores[queries[:, 2] == 3, 3] = -1e9 + 1  # the correction of a gold answer that is ruled out changes nothing
    expected, _ = naive_ranks(scores, queries, [train, test], 3)
    plan = plan_evaluation(
        test, known_tails([train, test], 37, 3), chunk=13, corrections=additions.corrections(*queries.T)
    )
    options = dict(block=8, mapper=mapper, scores=additions.scores, bars=additions.bars)
    ranks, _ = Ranker(distmult_query, dot_match, **options)(table, alike(vectors, mapper), plan)
    ruled_out = queries[:, 2] == 3
    np.testing.assert_array_equal(ranks[~ruled_out], expected[~ruled_out])
    assert ranks[ruled_out].min(initial=37) > 20


def test_training_facts_are_told_from_others_and_added_ones_join_them():
    train, test, _, _ = small_graph()
    additions = some_additions(train)
    queries = np.concatenate([reciprocal(train, 3), reciprocal(test, 3)])
    facts = {tuple(row) for row in reciprocal(train, 3).tolist()}
    wanted = [tuple(row) in facts for row in queries.tolist()]
    np.testing.assert_array_equal(additions.trained(*queries.T), wanted)
    assert not additions.trained(queries[:, 0] + 37, *queries.T[1:]).any()
    fresh = np.array([[38, 1, 4], [4, 0, 37]])
    grown = additions.extended(fresh, 39)
    assert additions.bars == grown.bars
    assert grown.trained([38, 4, 37, 38], [1, 4, 3, 0], [4, 38, 4, 4]).tolist() == [True, True, True, False]
    together = np.concatenate([train, fresh])
    np.testing.assert_array_equal(grown.scores[0].rows, counts(together, 39))
    np.testing.assert_array_equal(grown.scores[1].rows, find_cardinality(together, 39, 3, 2.0).rows)


def test_what_is_ruled_out_is_listed():
    train = np.array([[0, 0, 1], [2, 1, 2]])
    additions = Additions(bars=(find_self_answers(train, 2), Never(np.ones(4, bool))))
    rows, ids = additions.ruled_out(np.array([[5, 0], [6, 1], [7, 2], [8, 3]]))
    assert sorted(zip(rows.tolist(), ids.tolist(), strict=True)) == [(0, 3), (0, 5), (1, 3), (2, 3), (2, 7), (3, 3)]
    assert [len(part) for part in Additions().ruled_out(np.array([[5, 0]]))] == [0, 0]


def test_without_additions_nothing_is_added():
    queries = np.zeros((4, 3), np.int32)
    assert Additions().of_facts(*queries.T).tolist() == [0, 0, 0, 0]
    assert Additions().corrections(*queries.T).tolist() == [0, 0, 0, 0]
    table = jnp.ones((3, 2))
    assert changed(table, ()) is table
