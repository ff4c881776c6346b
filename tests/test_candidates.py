"""Shared candidates against sets and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.objective.candidates import first_occurrence, sample_pool


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
