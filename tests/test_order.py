"""The order of an epoch: a permutation, another one each epoch, and any as likely as any other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.training.shuffling import batch_rows, shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 1000, 79_222])
def test_every_number_comes_once(size):
    places = jnp.arange(size, dtype=jnp.int32)
    one, other = (np.asarray(jax.jit(lambda key: shuffled(key, places, size))(jax.random.key(seed))) for seed in (0, 1))
    np.testing.assert_array_equal(np.sort(one), places)
    np.testing.assert_array_equal(np.sort(other), places)
    if size > 3:
        assert not np.array_equal(one, other)
        assert not np.array_equal(one, places)


def test_a_place_alone_is_what_it_is_among_all():
    everything = shuffled(jax.random.key(3), jnp.arange(500, dtype=jnp.int32), 500)
    some = jnp.array([499, 7, 7, 0], jnp.int32)
    np.testing.assert_array_equal(shuffled(jax.random.key(3), some, 500), everything[some])


@pytest.mark.parametrize("size", [3, 5])
def test_permutations_are_equally_likely(size):
    """Pearson's statistic of 60,000 draws over all permutations, below 5 deviations over its mean."""
    places, kinds = jnp.arange(size, dtype=jnp.int32), math.factorial(size)
    draws = jax.jit(jax.vmap(lambda key: shuffled(key, places, size)))(jax.random.split(jax.random.key(0), 60_000))
    found, counts = np.unique(np.asarray(draws), axis=0, return_counts=True)
    assert len(found) == kinds
    statistic = ((counts - 60_000 / kinds) ** 2).sum() * kinds / 60_000
    assert statistic < kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5


def test_neighbours_part():
    """Rows that stand together, as a head's triples do in a file, must not share batches.

    A uniform draw of 100 of 100,000 rows holds 9.9 pairs less than 100 apart on average.
    """
    size, batch = 100_000, 100
    rows = np.asarray(shuffled(jax.random.key(1), jnp.arange(size, dtype=jnp.int32), size)).reshape(-1, batch)
    near = [(np.abs(one[:, None] - one[None, :]) < 100).sum() - batch for one in rows]
    assert np.mean(near) / 2 == pytest.approx(9.9, rel=0.05)


def test_an_epoch_is_cut_into_batches_and_the_last_filled_up_from_its_start():
    key, rows = jax.random.key(0), []
    take = jax.jit(lambda step: batch_rows(key, step, batch_size=8, triples=50))
    for step in range(14):
        rows.append(np.asarray(take(jnp.int32(step))))
    first, second = np.concatenate(rows[:7]), np.concatenate(rows[7:])
    for epoch in (first, second):
        np.testing.assert_array_equal(np.sort(epoch[:50]), np.arange(50))
        np.testing.assert_array_equal(epoch[50:], epoch[:6])
    assert not np.array_equal(first, second)
