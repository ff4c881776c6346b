"""Shared candidates against sets and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import lanes

from mocme_jax.method.egns import PACE, Seen, guided_pool, remembered
from mocme_jax.parallel.candidates import choose_columns, first_occurrence, sample_pool
from mocme_jax.parallel.device_axis import across_devices, share
from mocme_jax.parallel.mesh import WHOLE, Mapper


@pytest.mark.parametrize(
    ("entities", "size"), [(100, 1), (100, 10), (101, 10), (97, 96), (1000, 333), (14, 10), (7, 6)]
)
def test_pool_is_distinct_and_in_range(entities, size):
    for seed in range(5):
        pool = np.asarray(sample_pool(jax.random.key(seed), entities, size))
        assert pool.shape == (size,)
        assert pool.dtype == np.int32
        assert len(set(pool.tolist())) == size
        assert pool.min() >= 0
        assert pool.max() < entities


@pytest.mark.parametrize(("entities", "size"), [(1, 1), (10, 10), (10, 11), (97, 4000)])
def test_pool_is_everything_where_everything_fits(entities, size):
    np.testing.assert_array_equal(np.sort(sample_pool(jax.random.key(0), entities, size)), np.arange(entities))


@pytest.mark.parametrize(("entities", "size"), [(60, 12), (65, 12), (14, 10)])
def test_every_entity_is_drawn_as_often(entities, size):
    draws, share = 40_000, size / entities
    pools = jax.jit(jax.vmap(lambda key: sample_pool(key, entities, size)))(jax.random.split(jax.random.key(0), draws))
    shares = np.bincount(np.asarray(pools).ravel(), minlength=entities) / draws
    # Five deviations of a share are .010 at most; with strata that always start at 0, those of 5 and 6 entities
    # (65, 12) would lie .015 and .018 off, and those of 1 and 2 (14, 10) .29 and .21.
    assert np.abs(shares - share).max() < 5 * (share * (1 - share) / draws) ** 0.5


@pytest.mark.parametrize("even", [0.0, 0.3, 1.0])
def test_a_guided_pool_is_drawn_one_by_one_with_the_odds_of_entropy(even):
    """Against drawing them in turn, each time among those that are left, as NumPy does."""
    entropy, size, draws = np.array([0.9, 0.0, 0.1, 0.5, 0.5, 1.0, 0.05, 0.02], np.float32), 3, 6_000
    keys = jax.random.split(jax.random.key(0), draws)
    pools = np.asarray(jax.vmap(lambda key: guided_pool(key, jnp.asarray(entropy), size, even))(keys))
    assert pools.dtype == np.int32
    assert all(len(set(pool)) == size for pool in pools[:200].tolist())
    odds = even + (1 - even) * entropy / entropy.mean()
    rng = np.random.default_rng(0)
    expected = [rng.choice(len(odds), size, replace=False, p=odds / odds.sum()) for _ in range(draws)]
    shares, expected = (np.bincount(np.ravel(x), minlength=len(odds)) / draws for x in (pools, expected))
    # Five deviations of a difference of two shares.
    assert np.abs(shares - expected).max() < 5 * (2 * 0.25 / draws) ** 0.5
    assert (shares[1] == 0) == (even == 0)


def test_a_pool_that_no_entropy_guides_is_uniform():
    pools = jax.vmap(lambda key: guided_pool(key, jnp.zeros(8), 3, 0.0))(jax.random.split(jax.random.key(1), 20_000))
    shares = np.bincount(np.asarray(pools).ravel(), minlength=8) / 20_000
    assert np.abs(shares - 3 / 8).max() < 5 * (0.25 / 20_000) ** 0.5


@pytest.mark.parametrize("devices", [1, 4])
def test_running_means_move_towards_what_all_devices_have_seen(devices):
    """Against a loop; an entity that stands twice counts once, and one that was seen by nobody keeps its mean."""
    rng = np.random.default_rng(0)
    before = rng.uniform(size=10).astype(np.float32)
    ids = np.array([3, 7, 3, 1, 9, 0, 7, 5], np.int32)
    counts = first_occurrence(jnp.asarray(ids)) & (ids != 9)
    seen = rng.uniform(size=8).astype(np.float32)
    expected = before.copy()
    for entity, entropy, counted in zip(ids, seen, counts, strict=True):
        if counted:
            expected[entity] += PACE * (entropy - before[entity])

    def own(entropy):
        own = Seen(*(share(jnp.asarray(x), devices) for x in (ids, seen, counts)))
        return remembered(entropy, own, across_devices(devices))

    mapper = Mapper("shard_map", devices)
    after = mapper.map(own, (WHOLE,), WHOLE)(mapper.place(before, WHOLE))
    np.testing.assert_allclose(np.asarray(after).reshape(-1, 10)[0], expected, rtol=1e-6)


def test_first_occurrence_equals_the_loop():
    ids = np.random.default_rng(0).integers(0, 12, 30).astype(np.int32)
    expected = [ids[i] not in ids[:i] for i in range(len(ids))]
    np.testing.assert_array_equal(first_occurrence(jnp.asarray(ids)), expected)
    np.testing.assert_array_equal(first_occurrence(jnp.array([7])), [True])


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_devices_share_columns_out_in_ascending_order(devices):
    """Each place once, and of an entity's columns the first is the one that is scored: marks are set there."""
    batch = np.random.default_rng(0).integers(0, 12, (16, 3)).astype(np.int32)
    sizes = dict(entities=40, pool=16, in_batch=True, devices=devices)
    columns = lanes(lambda _: choose_columns(jax.random.key(0), jnp.asarray(batch), None, **sizes), devices)
    places, ids = np.asarray(columns.places), np.asarray(columns.ids)[0]
    assert (np.diff(places, axis=1) > 0).all()
    np.testing.assert_array_equal(np.sort(places.ravel()), np.arange(2 * len(batch) + 16))
    heads, tails = (ids[places[:, first * 16 // devices : (first + 1) * 16 // devices]].ravel() for first in (0, 1))
    np.testing.assert_array_equal(heads, batch[:, 0])
    np.testing.assert_array_equal(tails, batch[:, 2])
    scored = [ids[place] for device in range(devices) for place in places[device][np.asarray(columns.scored)[device]]]
    assert sorted(scored) == sorted(set(ids.tolist()))
    for device in range(devices):
        for number, place in enumerate(places[device]):
            if columns.scored[device][number]:
                assert ids[place] not in ids[places[device][:number]]
