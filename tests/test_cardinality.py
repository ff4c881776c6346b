"""Relations' cardinality: counted by a loop, added to every score alike, on all devices."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from test_ranking import naive_ranks

from mocme_jax.additions.addition import Additions
from mocme_jax.additions.cardinality import find_cardinality
from mocme_jax.data.graph.known_tails import known_tails, reciprocal
from mocme_jax.evaluation.evaluation_plan import plan_evaluation
from mocme_jax.evaluation.ranking import Ranker
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.mesh import ROWS, Mapper
from mocme_jax.serving.completion import complete_questions, score_relations, score_triples
from mocme_jax.serving.exported_tables import cardinality_of
from mocme_jax.serving.known_facts import Facts

ENTITIES, RELATIONS = 37, 3


def some_triples(rng, count=60):
    return np.stack([rng.integers(0, n, count) for n in (ENTITIES, RELATIONS, ENTITIES)], axis=1).astype(np.int32)


def test_each_triple_is_left_out_and_looked_at_with_the_others():
    rng = np.random.default_rng(1)
    train = some_triples(rng)
    train = np.concatenate([train, train[:5]])  # written twice, true once
    found = find_cardinality(train, ENTITIES, RELATIONS, 0.7)
    asked = {(h, r, t) for h, r, t in train.tolist()}
    asked |= {(t, r + RELATIONS, h) for h, r, t in train.tolist()}
    for relation in range(2 * RELATIONS):
        again = alone = 0.5
        for entity, other, answer in asked:
            if other == relation:
                others = {e for e, o, a in asked if (o, a) == (relation, answer)} - {entity}
                again, alone = again + bool(others), alone + (not others)
        assert found.whole[relation] == pytest.approx(0.7 * math.log(again / alone), rel=1e-5)
        answered = [answer for _, other, answer in asked if other == relation]
        assert found.rows[:, relation].tolist() == [min(answered.count(e), 2) for e in range(ENTITIES)]


def test_one_birthplace_each_and_many_born_in_a_city():
    people, cities = np.arange(20), 20 + np.arange(20) % 3
    train = np.stack([people, np.zeros(20, int), cities], axis=1)
    bonus = find_cardinality(train, 23, 1, 1.0).whole
    assert bonus[0] == pytest.approx(math.log(20.5 / 0.5))
    assert bonus[1] == pytest.approx(-bonus[0])


@pytest.mark.parametrize(("kind", "count"), [("none", 1), ("none", 3), ("pmap", 2), ("shard_map", 4)])
def test_the_ranker_adds_it_to_every_candidate(kind, count):
    rng, mapper = np.random.default_rng(2), Mapper(kind, count)
    train, test = some_triples(rng), some_triples(rng, 25)
    test[:8] = train[:8]  # as in released splits that overlap
    vectors = rng.normal(size=(ENTITIES, 8)).astype(np.float32)
    table = rng.normal(size=(2 * RELATIONS, 8)).astype(np.float32)
    counted = find_cardinality(train, ENTITIES, RELATIONS, 2.0)
    queries = reciprocal(test, RELATIONS)
    plain = ((vectors[queries[:, 0]] * table[queries[:, 1]]) @ vectors.T).astype(np.float64)
    relations = queries[:, 1]
    scores = plain + (counted.rows.T[relations] > 0) * counted.whole[relations][:, None].astype(np.float64)
    facts = {tuple(row) for row in reciprocal(train, RELATIONS).tolist()}
    for row, (entity, relation, answer) in enumerate(queries.tolist()):
        if (entity, relation, answer) in facts and not any(
            (e, relation, answer) in facts for e in range(ENTITIES) if e != entity
        ):
            scores[row, answer] = plain[row, answer]
    expected, _ = naive_ranks(scores, queries, [train, test], RELATIONS)

    corrections = Additions((counted,), (), train, (ENTITIES, RELATIONS)).corrections(*queries.T)
    plan = plan_evaluation(test, known_tails([train, test], ENTITIES, RELATIONS), chunk=13, corrections=corrections)
    assert (scores != plain + (counted.rows.T[relations] > 0) * counted.whole[relations][:, None]).any()
    ranker = Ranker(
        lambda params, questions, relation: questions * params[relation],
        lambda q, candidates: q @ candidates.T,
        mapper=mapper,
        block=8,
        scores=[counted],
    )
    placed = mapper.place(EntityVectors(vectors, vectors), EntityVectors(ROWS, ROWS))
    ranks, _ = ranker(jnp.asarray(table), placed, plan)
    np.testing.assert_array_equal(ranks, expected)
    assert (ranks != naive_ranks(plain, queries, [train, test], RELATIONS)[0]).any()


def without(model):
    """The same model, nothing added."""
    served, facts = model.served, model.served.facts
    return type(served)(
        **{name: getattr(served, name) for name in ("model", "params", "inputs", "added")},
        tables=served.tables._replace(additions=()),
        facts=Facts(facts.splits, facts.num_entities, facts.num_relations, Additions(bars=facts.additions.bars)),
    )


def test_a_loaded_model_counts_what_was_trained_on_and_adds_it_everywhere(model):
    served, plain, relations = model.served, without(model), len(model.relations)
    expected = find_cardinality(model.graph.train, len(model.entities), relations, 0.5)
    for got, wanted in zip(cardinality_of(model), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    triples = np.concatenate([model.graph.test, model.graph.train[:30]])
    h, r, _t = triples.T
    train = {tuple(row) for row in model.graph.train.tolist()}
    facts = train | {(tail, relation + relations, head) for head, relation, tail in train}

    def bonus(entity, relation, answer):
        """Of answers to another question than this one."""
        others = any((e, relation, answer) in facts for e in range(48) if e != entity)
        return others * expected.whole[relation]

    added = np.array([[bonus(h, r, t), bonus(t, r + relations, h)] for h, r, t in triples.tolist()])
    assert not all((h, r, t) in train or (added[row] != 0).all() for row, (h, r, t) in enumerate(triples.tolist()))
    np.testing.assert_allclose(score_triples(served, triples) - score_triples(plain, triples), added, atol=1e-5)
    pairs = triples[:, [0, 2]]
    difference = score_relations(served, pairs) - score_relations(plain, pairs)
    np.testing.assert_allclose(difference[np.arange(len(h)), r], added.mean(axis=1), atol=1e-5)
    questions = triples[:, :2]
    found = [complete_questions(one, questions, 48, np.ones(2 * relations)) for one in (served, plain)]
    scores = [np.zeros((len(questions), 48)) for _ in found]
    for one, score in zip(found, scores, strict=True):
        for row, (ids, values) in enumerate(zip(one.ids, one.scores, strict=True)):
            score[row, ids[ids >= 0]] = values[ids >= 0]
    wanted = [[bonus(h, r, e) if e != h else 0 for e in range(48)] for h, r in questions.tolist()]
    np.testing.assert_allclose(scores[0] - scores[1], wanted, atol=1e-5)


def test_entities_that_are_added_answer_what_their_triples_say(model):
    grown = model.add_entities(["new", "newer"], {}, [("place 3", "next", "new")])
    counted = cardinality_of(grown).rows
    asked, place = model.relations.ids(["next"])[0], model.entities.ids(["place 3"])[0]
    before = cardinality_of(model).rows
    assert counted.shape == (50, 6)
    assert counted[48].sum() == 1
    assert counted[48, asked]
    assert not counted[49].any()
    changed = np.argwhere(counted[:48] != before)
    assert changed.tolist() == ([] if before[place, asked + 3] == 2 else [[place, asked + 3]])
    again = grown.served.facts.additions.of_facts([place, place], [asked, asked], [48, 49])
    assert again.tolist() == [0, 0]  # the first has answered this question alone, the other none
    other = model.entities.ids(["place 20"])
    assert grown.served.facts.additions.of_facts(other, [asked], [48]) == cardinality_of(model).whole[asked]
