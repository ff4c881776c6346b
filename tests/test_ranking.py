"""Filtered ranks against a plain loop over queries and entities."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.additions.self_answers import SelfAnswers
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.known_tails import known_tails, reciprocal
from mocme_jax.evaluation.evaluation_plan import plan_evaluation
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.evaluation.ranking import Ranker
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.mesh import ROWS, Mapper
from mocme_jax.training.reevaluation import openke_metrics

ONE = Mapper("pmap", 1)


def distmult_query(relation_table, questions, relations):
    return questions * relation_table[relations]


def ones_query(_, questions, relations):
    return jnp.ones_like(questions)


def alike(vectors, mapper=ONE):
    """The same vectors for questions and answers, where the devices take them."""
    return mapper.place(EntityVectors(vectors, vectors), EntityVectors(ROWS, ROWS))


def dot_match(queries, candidates):
    return queries @ candidates.T


def distance_match(queries, candidates):
    return -jnp.sum(jnp.abs(queries[:, None, :] - candidates[None, :, :]), axis=-1)


def small_graph(seed=0, num_entities=37, num_relations=3, width=4):
    """Vectors of small integers: scores are exact in float32 and tie often."""
    rng = np.random.default_rng(seed)
    limits = [num_entities, num_relations, num_entities]
    train, test = (rng.integers(0, limits, (count, 3)).astype(np.int32) for count in (150, 41))
    vectors = rng.integers(-2, 3, (num_entities, width)).astype(np.float32)
    table = rng.integers(-2, 3, (2 * num_relations, width)).astype(np.float32)
    return train, test, vectors, table


def naive_ranks(scores, queries, splits, num_relations):
    """Realistic filtered ranks and ties, one query and one entity at a time; scores float64 ``[Q, N]``."""
    facts = set(map(tuple, reciprocal(np.concatenate(splits), num_relations).tolist()))
    ranks, all_ties = [], []
    for row, (entity, relation, gold) in zip(scores, queries.tolist(), strict=True):
        better = ties = 0
        for candidate, score in enumerate(row):
            if candidate == gold or (entity, relation, candidate) in facts:
                continue
            better += score > row[gold]
            ties += score == row[gold]
        ranks.append(1 + better + ties / 2)
        all_ties.append(ties)
    return np.array(ranks), np.array(all_ties)


@pytest.mark.parametrize(
    ("match_fn", "chunk", "block"),
    [
        *((dot_match, chunk, block) for chunk, block in ((None, 512), (5, 16), (82, 1))),
        *((distance_match, chunk, block) for chunk, block in ((1, 8), (13, 37), (1000, 36))),
    ],
)
def test_ranks_equal_a_plain_loop(match_fn, chunk, block):
    train, test, vectors, table = small_graph()
    queries = reciprocal(test, 3)
    asked = (vectors[queries[:, 0]] * table[queries[:, 1]]).astype(np.float64)
    scores = asked @ vectors.T.astype(np.float64)
    if match_fn is distance_match:
        scores = -np.abs(asked[:, None] - vectors[None]).sum(-1)
    expected, expected_ties = naive_ranks(scores, queries, [train, test], 3)
    assert (expected_ties > 0).mean() > 0.5, "the graph must put ties to the test"

    plan = plan_evaluation(test, known_tails([train, test], 37, 3), chunk=chunk)
    ranks, ties = Ranker(distmult_query, match_fn, block=block, mapper=ONE)(table, alike(vectors), plan)
    assert ranks.dtype == np.float64
    np.testing.assert_array_equal(ties, expected_ties)
    np.testing.assert_array_equal(ranks, expected)
    np.testing.assert_array_equal(plan.queries, queries)


def test_openke_ranks_equal_a_plain_loop_of_its_definition():
    """Test.h of OpenKE: for each entity but the gold, one more if it scores strictly higher and is no known triple."""
    train, test, vectors, table = small_graph(seed=1)
    facts = set(map(tuple, np.concatenate([train, test]).tolist()))
    expected = []
    for direction in ("tail", "head"):
        for head, relation, tail in test.tolist():
            asked, gold, row = (head, tail, relation) if direction == "tail" else (tail, head, relation + 3)
            scores = vectors.astype(np.float64) @ (vectors[asked] * table[row]).astype(np.float64)
            higher = 0
            for other in range(len(vectors)):
                triple = (head, relation, other) if direction == "tail" else (other, relation, tail)
                if other != gold and scores[other] > scores[gold] and triple not in facts:
                    higher += 1
            expected.append(higher + 1)

    class Model:
        def apply(self, table, questions, relations, method):
            return distmult_query(table, questions, relations)

        match = staticmethod(dot_match)

    names = [str(index) for index in range(37)]
    graph = KnowledgeGraph("ties", names, names[:3], train, test[:0], test)
    evaluator = Evaluator(Model(), graph, [train, test], mapper=ONE)
    strict, optimistic = evaluator.both_ranks(table, alike(vectors), "test")
    assert optimistic.tolist() == expected
    assert (strict > optimistic).mean() > 0.5, "the graph must put ties to the test"
    metrics = openke_metrics({"test": (strict, optimistic)})
    assert metrics["test"]["tied"] == (strict > optimistic).sum()
    assert metrics["test"]["openke"]["mrr"] == pytest.approx(np.mean(1 / np.array(expected)))
    assert metrics["test, heads"]["openke"]["hits@1"] == np.mean(np.array(expected[41:]) == 1)


def rank_by_score(scores, tests, known_answers, **options):
    """Tail ranks of ``(0, 0, t)`` for t in `tests`, where entity i scores ``scores[i]``."""
    vectors = np.asarray(scores, np.float32)[:, None]
    triples = np.array([[0, 0, tail] for tail in known_answers], np.int32)
    test = np.array([[0, 0, tail] for tail in tests], np.int32)
    plan = plan_evaluation(test, known_tails([triples, test], len(scores), 1), **options)
    return Ranker(ones_query, dot_match, block=4, mapper=ONE)(None, alike(vectors), plan)[0][: len(tests)].tolist()


def test_ties_share_their_places():
    # Five of the six others tie: the mean of places 1 to 6.
    assert rank_by_score([2, 2, 2, 2, 2, 2, 1], [3], []) == [3.5]
    assert rank_by_score([2, 2, 9, 2, 2, 2, 1], [3], []) == [4.0]


def test_known_answers_do_not_compete_and_golds_do_not_compete_with_each_other():
    scores = [9, 8, 7, 6, 5, 4]
    assert rank_by_score(scores, [3], []) == [4.0]
    assert rank_by_score(scores, [3], [0, 2, 2, 0]) == [2.0]
    assert rank_by_score(scores, [3, 5, 0, 3], [2]) == [2.0, 3.0, 1.0, 2.0]
    assert rank_by_score(scores, [3, 5, 0, 3], [2], chunk=1) == [2.0, 3.0, 1.0, 2.0]


def test_a_gold_below_every_rival_is_ranked_last():
    # A gold cleared before its score is read would tie with the cleared ones and come out first.
    assert rank_by_score([3, 2, 1, -5], [3], [0]) == [3.0]


def unrounded_graph(copies):
    """Vectors whose scores need rounding, 300 of them `copies` times over; triples among the first 300."""
    rng = np.random.default_rng(3)
    vectors = np.tile(rng.normal(size=(300, 200)).astype(np.float32), (copies, 1))
    table = rng.normal(size=(2, 200)).astype(np.float32)
    test = rng.integers(0, [300, 1, 300], (200, 3)).astype(np.int32)
    return test, vectors, table


def test_a_gold_does_not_tie_with_itself_and_float32_hardly_matters():
    test, vectors, table = unrounded_graph(copies=1)
    plan = plan_evaluation(test, known_tails([test], 300, 1), chunk=77)
    ranks, ties = Ranker(distmult_query, dot_match, block=128, mapper=ONE)(table, alike(vectors), plan)
    queries = reciprocal(test, 1)
    scores = (vectors[queries[:, 0]] * table[queries[:, 1]]).astype(np.float64) @ vectors.T.astype(np.float64)
    expected, _ = naive_ranks(scores, queries, [test], 1)
    assert not ties.any()
    # float32 may swap neighbours that lie within its rounding, here and there by one place.
    assert np.abs(ranks - expected).max() <= 1
    assert (ranks != expected).mean() < 0.01


def test_a_gold_ties_with_its_double_to_the_last_bit():
    """A gold whose score came from an expression of its own would miss the tie in about half the queries."""
    test, vectors, table = unrounded_graph(copies=2)
    plan = plan_evaluation(test, known_tails([test], 600, 1), chunk=77)
    ranks, ties = Ranker(distmult_query, dot_match, block=300, mapper=ONE)(table, alike(vectors), plan)
    assert (ties == 1).all()
    assert (ranks % 1 == 0.5).all()


def test_one_entity_ranks_first():
    loop = np.zeros((2, 3), np.int32)
    plan = plan_evaluation(loop, known_tails([loop], 1, 1))
    one = alike(np.ones((1, 3), np.float32))
    ranks, ties = Ranker(distmult_query, dot_match, mapper=ONE)(np.ones((2, 3)), one, plan)
    assert ranks.tolist() == [1, 1, 1, 1]
    assert not ties.any()


def test_both_directions_use_their_own_relation():
    """Entity i is the vector of i: relation 0 prefers high tails, its inverse low heads."""
    vectors = np.arange(5, dtype=np.float32)[:, None]

    def prefer(table, questions, relations):
        return jnp.ones_like(questions) * table[relations][:, None]

    test = np.array([[1, 0, 3]], np.int32)
    plan = plan_evaluation(test, known_tails([test], 5, 1))
    ranks, _ = Ranker(prefer, dot_match, mapper=ONE)(np.array([1.0, -1.0], np.float32), alike(vectors), plan)
    assert ranks.tolist() == [2, 2]


def test_what_is_asked_and_what_answers_may_differ():
    """Entity 1 asks for high answers as a question; as an answer it is worth 1."""
    values = np.arange(5, dtype=np.float32)[:, None]
    vectors = ONE.place(EntityVectors(-values, values), EntityVectors(ROWS, ROWS))
    plan = plan_evaluation(np.array([[1, 0, 3]], np.int32), known_tails([np.array([[1, 0, 3]])], 5, 1))
    ranks, _ = Ranker(distmult_query, dot_match, mapper=ONE)(np.array([[-1.0], [1.0]], np.float32), vectors, plan)
    # -1 * -1 = 1 prefers high answers, of which 3 is second; -3 * 1 prefers low ones, of which 1 is second.
    assert ranks.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("kind", "count", "chunk"),
    [("pmap", 2, 5), ("pmap", 8, 1000), ("shard_map", 1, 1000), ("shard_map", 4, 5), ("none", 4, 1000)],
)
@pytest.mark.slow
def test_devices_do_not_change_ranks(kind, count, chunk):
    train, test, _, _ = small_graph()
    rng = np.random.default_rng(1)
    # Of such numbers products and sums are exact, in any order.
    vectors, table = rng.integers(-9, 10, (37, 16)), rng.integers(-9, 10, (6, 16))
    vectors, table = jnp.asarray(vectors, jnp.float32), jnp.asarray(table, jnp.float32)
    plan = plan_evaluation(test, known_tails([train, test], 37, 3), chunk=chunk)
    one, many = (
        Ranker(distmult_query, dot_match, block=16, mapper=mapper)(table, alike(vectors, mapper), plan)[0]
        for mapper in (ONE, Mapper(kind, count))
    )
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_an_error(value):
    train, test, vectors, table = small_graph()
    vectors = np.abs(vectors) + 1
    table = np.abs(table) + 1
    plan = plan_evaluation(test, known_tails([train, test], 37, 3), chunk=10)
    ranker = Ranker(distmult_query, dot_match, block=16, mapper=ONE)
    ranker(table, alike(vectors), plan)
    vectors[36, 0] = value
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        ranker(table, alike(vectors), plan)


def test_padding_is_not_mistaken_for_an_entity():
    """A score that is infinite or winning for a zero vector must change neither the ranks nor the check."""
    reward_zero = lambda queries, candidates: queries @ (1 / candidates).T  # noqa: E731
    vectors = -np.arange(1, 6, dtype=np.float32)[:, None]
    test = np.array([[0, 0, 4]], np.int32)
    plan = plan_evaluation(test, known_tails([test], 5, 1))
    ranks, _ = Ranker(ones_query, reward_zero, block=4, mapper=ONE)(None, alike(vectors), plan)
    assert ranks.tolist() == [1, 5]


def test_evaluations_of_one_shape_compile_once():
    train, test, vectors, table = small_graph()
    plan = plan_evaluation(test, known_tails([train, test], 37, 3), chunk=10)
    chex.clear_trace_counter()
    ranker = Ranker(chex.assert_max_traces(distmult_query, n=1), dot_match, mapper=ONE)
    first = ranker(table, alike(vectors), plan)[0]
    second = ranker(table, alike(vectors * 2), plan)[0]
    np.testing.assert_array_equal(first, second)


def test_products_are_in_full_precision():
    seen = []

    def match(queries, candidates):
        seen.append(jax.config.jax_default_matmul_precision)
        return queries @ candidates.T

    train, test, vectors, table = small_graph()
    plan = plan_evaluation(test, known_tails([train, test], 37, 3))
    Ranker(distmult_query, match, mapper=ONE)(table, alike(vectors), plan)
    assert seen
    assert set(seen) == {"highest"}


def test_memory_for_scores_bounds_the_chunk():
    train, test, _, _ = small_graph()
    known = known_tails([train, test], 37, 3)
    assert plan_evaluation(test, known, score_bytes=4 * 37 * 20).heads.shape[1] <= 20
    assert plan_evaluation(test, known, score_bytes=1).gold_rows.shape[1] == 8


def test_a_plan_refuses_what_it_cannot_filter():
    train, test, vectors, table = small_graph()
    with pytest.raises(ValueError, match="not among the known"):
        plan_evaluation(test, known_tails([train], 37, 3))
    with pytest.raises(ValueError, match="no triples"):
        plan_evaluation(test[:0], known_tails([train], 37, 3))
    plan = plan_evaluation(test, known_tails([train, test], 37, 3))
    with pytest.raises(ValueError, match="32 rows of entity vectors for a plan of 37"):
        Ranker(distmult_query, dot_match, mapper=ONE)(table, alike(vectors[:30]), plan)


@pytest.mark.parametrize("mapper", [ONE, Mapper("shard_map", 4)])
@pytest.mark.parametrize("never", [[True, True, True], [False, True, False]])
def test_what_is_ruled_out_ranks_below_all_others(mapper, never):
    train, test, vectors, table = small_graph()
    test = np.concatenate([test, [[7, 0, 7], [8, 1, 8]]]).astype(np.int32)
    queries = reciprocal(test, 3)
    scores = ((vectors[queries[:, 0]] * table[queries[:, 1]]) @ vectors.T).astype(np.float64)
    barred = np.array(never)[queries[:, 1] % 3]
    scores[barred, queries[barred, 0]] = -1e9
    expected, _ = naive_ranks(scores, queries, [train, test], 3)

    plan = plan_evaluation(test, known_tails([train, test], 37, 3), chunk=13)
    bars = [SelfAnswers(np.tile(never, 2))]
    ranker = Ranker(distmult_query, dot_match, block=8, mapper=mapper, bars=bars)
    ranks, _ = ranker(table, alike(vectors, mapper), plan)
    np.testing.assert_array_equal(ranks, expected)
    assert expected[-1 - len(test)] > 20, "a gold answer that is barred is far down"
