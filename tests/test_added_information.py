"""Log probabilities and the information that a part adds, against NumPy, a library's optimiser and known answers."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from mocme_jax.additions.self_answers import SelfAnswers
from mocme_jax.data.graph.known_tails import known_tails, reciprocal
from mocme_jax.evaluation.added_information import added_information, by_relation
from mocme_jax.evaluation.evaluation_plan import plan_evaluation
from mocme_jax.evaluation.ranking import Ranker
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.mesh import ROWS, Mapper

ONE = Mapper("pmap", 1)


def distmult_query(relation_table, questions, relations):
    return questions * relation_table[relations]


def dot_match(queries, candidates):
    return queries @ candidates.T


def log_probabilities(questions, answers, table, plan, mapper=ONE):
    vectors = EntityVectors(*(jnp.asarray(part, jnp.float32) for part in (questions, answers)))
    placed = mapper.place(vectors, EntityVectors(ROWS, ROWS))
    program = Ranker(distmult_query, dot_match, mapper=mapper, block=16).log_probabilities
    return program(jnp.asarray(table, jnp.float32), placed, plan)


def random_graph():
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, [37, 3, 37], (count, 3)).astype(np.int32) for count in (150, 41))
    vectors, table = rng.normal(size=(37, 4)), rng.normal(size=(6, 4))
    # Golds that score well, so that the best sharpness lies within the range.
    for head, relation, tail in test:
        vectors[tail] += 0.3 * vectors[head] * table[relation]
    return train, test, vectors.astype(np.float32), table.astype(np.float32)


def rivals_of(scores, queries, splits, relations):
    """Of each query the scores of its gold and of all entities that are no known answer, the gold's first."""
    facts = set(map(tuple, reciprocal(np.concatenate(splits), relations).tolist()))
    found = []
    for row, (entity, relation, gold) in zip(scores, queries.tolist(), strict=True):
        others = [row[c] for c in range(len(row)) if c != gold and (entity, relation, c) not in facts]
        found.append(np.array([row[gold], *others]))
    return found


@pytest.mark.parametrize("scale", [1.0, 0.01, 30.0])
def test_log_probabilities_are_those_of_the_best_sharpness(scale):
    train, test, vectors, table = random_graph()
    queries = reciprocal(test, 3)
    plan = plan_evaluation(test, known_tails([train, test], 37, 3), chunk=13)
    found = log_probabilities(vectors, vectors, scale * table, plan)
    scores = (vectors[queries[:, 0]] * table[queries[:, 1]]).astype(np.float64) @ vectors.T
    rows = rivals_of(scores, queries, [train, test], 3)

    def loss(log_sharpness):
        return -np.mean([log_softmax(np.exp(log_sharpness) * row)[0] for row in rows])

    best = minimize_scalar(loss, bounds=(-8, 4), method="bounded")
    # Whatever the scale of the scores; the last grid's step costs less than a thousandth of a nat.
    assert found.mean() == pytest.approx(-best.fun, abs=1e-3)
    expected = [log_softmax(np.exp(best.x) * row)[0] for row in rows]
    np.testing.assert_allclose(found, expected, atol=0.2)


def test_scores_without_sense_are_as_good_as_a_draw():
    """Sure of itself and always wrong: the best that can be made of it is an even chance among the entities."""
    rng = np.random.default_rng(1)
    test = np.unique(rng.integers(0, [50, 1, 50], (400, 3)), axis=0).astype(np.int32)
    plan = plan_evaluation(test, known_tails([test], 50, 1))
    vectors = 100 * rng.normal(size=(50, 8))
    found = log_probabilities(vectors, vectors, np.ones((2, 8)), plan)
    # About 7 of 50 are known answers of a query and are no rivals.
    assert -np.log(50) - 0.01 < found.mean() < -np.log(35)
    assert found.std() < 0.2


def test_an_answer_that_is_ruled_out_is_unlikely_and_finite():
    """A bar takes a gold's score as low as float32 goes; the mean over queries must stay a number."""
    loops = np.array([[entity, 0, entity] for entity in range(40)], np.int32)
    plan = plan_evaluation(loops, known_tails([loops], 40, 1))
    vectors = ONE.place(EntityVectors(*[jnp.ones((40, 2))] * 2), EntityVectors(ROWS, ROWS))
    barred = SelfAnswers(np.ones(2, bool))
    program = Ranker(distmult_query, dot_match, mapper=ONE, bars=[barred]).log_probabilities
    found = program(jnp.ones((2, 2)), vectors, plan)
    assert np.isfinite(found).all()
    assert (found < -np.log(39)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("pmap", 8), ("shard_map", 4), ("none", 4)])
def test_devices_do_not_change_log_probabilities(kind, count):
    train, test, vectors, table = random_graph()
    plan = plan_evaluation(test, known_tails([train, test], 37, 3), chunk=13)
    one, many = (log_probabilities(vectors, vectors, table, plan, mapper) for mapper in (ONE, Mapper(kind, count)))
    np.testing.assert_allclose(one, many, rtol=1e-5)


def bits_graph():
    """Heads 0 to 15 lead to the answer, 16 to 19, that has their two bits; the reciprocal is never asked for here."""
    heads = np.arange(16)
    bits = np.stack([heads % 2, heads // 2 % 2], 1) * 2 - 1
    tails = 16 + heads % 4
    answers = np.zeros((20, 4))
    # Both bits, and both again for the parts that come third and fourth in a question.
    answers[16:] = np.tile(bits[:4], 2)
    triples = np.stack([heads, np.zeros(16, int), tails], 1).astype(np.int32)
    # Heads are no candidates of each other: every other head is a known answer, too.
    others = np.array([[h, 0, t] for h in heads for t in range(16)], np.int32)
    return bits, answers, triples, others


def test_a_bit_adds_log_two_a_copy_nothing_and_noise_nothing():
    bits, answers, triples, others = bits_graph()
    plan = plan_evaluation(triples, known_tails([triples, others], 20, 1))
    noise = np.random.default_rng(0).normal(size=16)

    def tails(first, second, copy, other):
        """Log probabilities of the tails where a question carries these coordinates."""
        questions = np.zeros((20, 4))
        questions[:16] = 20 * np.stack([first, second, copy, other], 1)
        asked = np.stack([np.ones(4), np.zeros(4)])
        return np.tile(log_probabilities(questions, answers, asked, plan)[:16], 2)

    none, (first, second) = np.zeros(16), bits.T
    whole = tails(first, second, none, none)
    assert added_information(whole, tails(none, second, none, none)).nats == pytest.approx(np.log(2), abs=1e-4)
    assert added_information(whole, tails(first, none, none, none)).nats == pytest.approx(np.log(2), abs=1e-4)
    assert added_information(whole, tails(none, none, none, none)).nats == pytest.approx(np.log(4), abs=1e-4)
    copied = tails(first, second, first, none)
    assert added_information(copied, tails(none, second, first, none)).nats == pytest.approx(0, abs=1e-4)
    noisy = tails(first, second, none, 0.1 * noise)
    assert added_information(noisy, whole).nats == pytest.approx(0, abs=1e-4)


def test_the_interval_is_that_of_the_mean_over_triples():
    rng = np.random.default_rng(0)
    whole, without = rng.normal(size=(2, 2, 300))
    added = added_information(whole.reshape(-1), without.reshape(-1))
    gains = (whole - without).mean(axis=0)
    assert added.nats == pytest.approx(gains.mean())
    assert added.margin == pytest.approx(1.96 * gains.std(ddof=1) / np.sqrt(300))
    assert added.triples == 300
    assert added_information(np.array([1.0, 3.0]), np.zeros(2)) == (2.0, None, 1)
    with pytest.raises(ValueError, match="no triples"):
        added_information(np.zeros(0), np.zeros(0))


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    found = [added_information(rng.normal(0.3, 1, 400), np.zeros(400)) for _ in range(2000)]
    held = [abs(one.nats - 0.3) < one.margin for one in found]
    assert 0.935 < np.mean(held) < 0.965


def test_relations_come_by_frequency_with_both_questions_of_their_triples():
    whole = np.array([1.0, 2, 3, 4, 10, 20, 30, 40])
    found = by_relation(whole, np.zeros(8), np.array([5, 2, 5, 5]))
    assert list(found) == [5, 2]
    assert found[2] == (11.0, None, 1)
    assert found[5].nats == pytest.approx(np.mean([1, 3, 4, 10, 30, 40]))
