"""Shared candidates and the mask of known triples against sets and loops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.objective.candidates import first_occurrence, index_known, known_columns, sample_pool

ENTITIES, RELATIONS = 150, 3


@pytest.mark.parametrize("entities,size", [(100, 1), (100, 10), (101, 10), (97, 96), (1000, 333), (14, 10), (7, 6)])
def test_pool_is_distinct_and_in_range(entities, size):
    for seed in range(5):
        pool = np.asarray(sample_pool(jax.random.key(seed), entities, size))
        assert pool.shape == (size,) and pool.dtype == np.int32
        assert len(set(pool.tolist())) == size and pool.min() >= 0 and pool.max() < entities


@pytest.mark.parametrize("entities,size", [(1, 1), (10, 10), (10, 11), (97, 4000)])
def test_pool_is_everything_where_everything_fits(entities, size):
    np.testing.assert_array_equal(np.sort(sample_pool(jax.random.key(0), entities, size)), np.arange(entities))


@pytest.mark.parametrize("entities,size", [(60, 12), (65, 12), (14, 10)])
def test_every_entity_is_drawn_as_often(entities, size):
    draws, share = 40_000, size / entities
    pools = jax.jit(jax.vmap(lambda key: sample_pool(key, entities, size)))(
        jax.random.split(jax.random.key(0), draws)
    )
    shares = np.bincount(np.asarray(pools).ravel(), minlength=entities) / draws
    # Five deviations of a share are .010 at most; with strata that always start at 0, those of 5 and 6 entities
    # (65, 12) would lie .015 and .018 off, and those of 1 and 2 (14, 10) .29 and .21.
    assert np.abs(shares - share).max() < 5 * (share * (1 - share) / draws) ** 0.5


def test_first_occurrence_equals_the_loop():
    ids = np.random.default_rng(0).integers(0, 12, 30).astype(np.int32)
    expected = [ids[i] not in ids[:i] for i in range(len(ids))]
    np.testing.assert_array_equal(first_occurrence(jnp.asarray(ids)), expected)
    np.testing.assert_array_equal(first_occurrence(jnp.array([7])), [True])


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


@pytest.mark.parametrize("hubs", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_known_columns_equal_the_set(hubs, repeated):
    triples = example_triples(hubs)
    facts = set(map(tuple, triples.tolist()))
    known = jax.tree.map(jnp.asarray, index_known(triples, ENTITIES, RELATIONS))
    assert (known.bits.shape[0] > 1) == hubs
    rng = np.random.default_rng(1)
    columns = np.sort(rng.choice(ENTITIES, 60, replace=False))
    if repeated:
        columns = np.concatenate([rng.integers(0, ENTITIES, 80), columns])
    columns = columns.astype(np.int32)
    first = np.array([columns[c] not in columns[:c] for c in range(len(columns))])
    mask = jax.jit(known_columns)
    for direction in (0, 1):
        found = np.asarray(mask(known, known.groups[:, direction], columns))
        chex.assert_shape(found, (len(triples), len(columns)))
        for row, (head, relation, tail) in zip(found, triples.tolist(), strict=True):
            if direction == 0:
                expected = np.array([(head, relation, c) in facts for c in columns.tolist()])
            else:
                expected = np.array([(c, relation, tail) in facts for c in columns.tolist()])
            # Repeated columns are nobody's negatives; only their first occurrence is promised.
            np.testing.assert_array_equal(row[first], expected[first])


def test_groups_are_the_queries():
    triples = example_triples(True)
    known = index_known(triples, ENTITIES, RELATIONS)
    for direction, fixed in ((0, (0, 1)), (1, (2, 1))):
        groups = known.groups[:, direction].tolist()
        queries = [tuple(row) for row in triples[:, list(fixed)].tolist()]
        assert len(set(groups)) == len(set(queries)) == len(set(zip(groups, queries, strict=True)))
    assert not set(known.groups[:, 0].tolist()) & set(known.groups[:, 1].tolist())


def test_its_own_answer_is_masked_for_every_query():
    triples = example_triples(True)
    known = jax.tree.map(jnp.asarray, index_known(triples, ENTITIES, RELATIONS))
    everything = jnp.arange(ENTITIES, dtype=jnp.int32)
    rows = np.arange(len(triples))
    for direction, answer in ((0, 2), (1, 0)):
        mask = np.asarray(known_columns(known, known.groups[:, direction], everything))
        assert mask[rows, triples[:, answer]].all()
