"""The mask of known answers against sets of triples, on one device and split over several."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import alone

from mocme_jax.additions.self_answers import SelfAnswers
from mocme_jax.parallel.candidates import first_occurrence
from mocme_jax.parallel.device_axis import share
from mocme_jax.parallel.known_answers import (
    LIST_WIDTH,
    count_known,
    entity_facts,
    hub_queries,
    index_known,
    known_columns,
    known_spec,
)
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper
from mocme_jax.training.device_data import make_known

ENTITIES, RELATIONS = 150, 3


def example_triples(hubs, seed=0):
    """Random triples with duplicates; with hubs, queries of 33, 100 and 32 tails, and one with every entity."""
    rng = np.random.default_rng(seed)
    triples = [rng.integers(0, [ENTITIES, RELATIONS, ENTITIES], (120, 3))]
    triples.append(triples[0][:10])
    if hubs:
        for head, relation, count in ((0, 0, 33), (1, 1, 100), (2, 2, 32), (ENTITIES - 1, 0, ENTITIES)):
            tails = rng.choice(ENTITIES, count, replace=False)
            triples.append(np.stack([np.full(count, head), np.full(count, relation), tails], axis=1))
        # And a head prediction query with many answers.
        heads = rng.choice(ENTITIES, 70, replace=False)
        triples.append(np.stack([heads, np.full(70, 2), np.full(70, 5)], axis=1))
    triples = np.concatenate(triples).astype(np.int32)
    return triples[rng.permutation(len(triples))]


@functools.cache
def queries_and_truth(hubs):
    """Both directions of all triples as queries ``[Q]``, and which entities answer them, ``[Q, N]``, from a set."""
    triples = example_triples(hubs)
    facts = set(map(tuple, triples.tolist()))
    everyone = range(ENTITIES)
    truth = [[(h, r, e) in facts for e in everyone] for h, r, _ in triples.tolist()]
    truth += [[(e, r, t) in facts for e in everyone] for _, r, t in triples.tolist()]
    entities = np.concatenate([triples[:, 0], triples[:, 2]])
    relations = np.concatenate([triples[:, 1], triples[:, 1] + RELATIONS])
    return triples, jnp.asarray(entities), jnp.asarray(relations), np.array(truth)


def columns_for(repeated):
    rng = np.random.default_rng(1)
    columns = rng.choice(ENTITIES, 64, replace=False)
    if repeated:
        columns = np.concatenate([rng.integers(0, ENTITIES, 80), columns])
    return columns.astype(np.int32)


@pytest.mark.parametrize("hubs", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_known_columns_equal_the_set(hubs, repeated):
    triples, entities, relations, truth = queries_and_truth(hubs)
    known = make_known([triples], ENTITIES, RELATIONS, Mapper("pmap", 1))
    assert len(known.hub_entities) == (4 if hubs else 0)
    counts = alone(lambda: count_known(known, entities, relations, split=False))()
    np.testing.assert_array_equal(counts, truth.sum(axis=1))
    columns = columns_for(repeated)
    wanted = first_occurrence(jnp.asarray(columns))
    mask = jax.jit(
        alone(lambda *arrays: known_columns(known, *arrays, split=False, everything=False)),
    )(entities, relations, columns, wanted)
    chex.assert_shape(mask, (2 * len(triples), len(columns)))
    np.testing.assert_array_equal(np.asarray(mask)[:, wanted], truth[:, columns][:, wanted])


def test_what_is_ruled_out_is_marked():
    triples, entities, relations, truth = queries_and_truth(False)
    never = np.arange(RELATIONS) % 2 == 1
    bars = (SelfAnswers(jnp.tile(never, 2)),)
    known = make_known([triples], ENTITIES, RELATIONS, Mapper("pmap", 1))._replace(bars=bars)
    columns = np.arange(ENTITIES, dtype=np.int32)
    arguments = known, jnp.asarray(entities), jnp.asarray(relations), columns, np.ones(ENTITIES, bool)
    mask = alone(lambda: known_columns(*arguments, split=False, everything=True))()
    barred = never[np.asarray(relations) % RELATIONS]
    assert barred.any()
    assert not barred.all()
    expected = truth | ((np.asarray(entities)[:, None] == columns) & barred[:, None])
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("kind", "count"), [("shard_map", 4), ("pmap", 8), ("none", 2)])
@pytest.mark.parametrize("everything", [False, True])
def test_split_facts_mark_the_same(kind, count, everything):
    """Each device marks its own columns, with facts of which it holds a share."""
    triples, entities, relations, truth = queries_and_truth(True)
    mapper = Mapper(kind, count)
    known = make_known([triples], ENTITIES, RELATIONS, mapper, split=True)
    held = mapper.table_rows(ENTITIES, True)
    columns = np.minimum(np.arange(held), ENTITIES - 1).astype(np.int32) if everything else columns_for(True)
    wanted = np.asarray(first_occurrence(jnp.asarray(columns)))

    def body(known, entities, relations, columns, wanted):
        own, matter = share(columns, count), share(wanted, count)
        mask = known_columns(known, entities, relations, own, matter, split=True, everything=everything).T
        return mask, count_known(known, entities, relations, split=True)

    spec = (known_spec(True), WHOLE, WHOLE, WHOLE, WHOLE)
    program = mapper.map(body, spec, (ROWS, WHOLE))
    mask, counts = program(known, *(mapper.place(x, WHOLE) for x in (entities, relations, columns, wanted)))
    mask = np.asarray(mapper.whole_tables(mask, ROWS)).T
    np.testing.assert_array_equal(mask[:, wanted], truth[:, columns][:, wanted])
    np.testing.assert_array_equal(counts, truth.sum(axis=1))


def test_a_query_is_a_hub_from_33_answers_on():
    """Distinct answers count: 32 of (0, 0), one of them twice, and 33 of (1, 2)."""
    rows = [(0, 0, tail) for tail in [*range(10, 42), 10]] + [(1, 2, tail) for tail in range(50, 83)]
    facts = entity_facts([np.array(rows, np.int32)], ENTITIES, RELATIONS, 0, ENTITIES)
    assert LIST_WIDTH == 32
    assert hub_queries(facts, ENTITIES).tolist() == [1 * 2 * RELATIONS + 2]


def test_shares_of_the_facts_are_the_facts():
    triples = example_triples(True)
    facts = entity_facts([triples], ENTITIES, RELATIONS, 0, ENTITIES)
    shares = [entity_facts([triples], ENTITIES, RELATIONS, low, low + 40) for low in range(0, ENTITIES, 40)]
    np.testing.assert_array_equal(np.concatenate(shares), facts)
    hubs = hub_queries(facts, ENTITIES)
    whole = index_known(facts, hubs, ENTITIES, RELATIONS, 0, ENTITIES)
    # From facts of others too, and with rows behind the last entity.
    last = index_known(facts, hubs, ENTITIES, RELATIONS, 120, 40)
    np.testing.assert_array_equal(np.diff(last.first), [*np.diff(whole.first)[120:], *[0] * 10])
    np.testing.assert_array_equal(last.answers, whole.answers[whole.first[120] :])
    np.testing.assert_array_equal(last.listed, whole.listed[whole.listed_first[120] :])


@pytest.mark.parametrize("hubs", [False, True])
def test_split_facts_have_the_hubs_that_whole_ones_have(hubs):
    """Without any, a step must not look for them."""
    triples = example_triples(hubs)
    whole = make_known([triples], ENTITIES, RELATIONS, Mapper("pmap", 1))
    split = make_known([triples], ENTITIES, RELATIONS, Mapper("shard_map", 4), split=True)
    np.testing.assert_array_equal(split.hub_entities, whole.hub_entities)
    np.testing.assert_array_equal(split.hub_relations, whole.hub_relations)
    assert len(split.hub_entities) == (4 if hubs else 0)


def test_an_entity_without_facts_is_asked_in_vain():
    triples = np.array([[0, 0, 1]], np.int32)
    known = make_known([triples], 3, 1, Mapper("pmap", 1))
    asked, columns = jnp.array([2, 2, 1], jnp.int32), jnp.arange(3, dtype=jnp.int32)
    arguments = known, asked, jnp.array([0, 1, 1]), columns, columns >= 0
    mask = alone(lambda: known_columns(*arguments, split=False, everything=True))()
    np.testing.assert_array_equal(mask, [[False] * 3, [False] * 3, [True, False, False]])
