"""Optimizers against loops in float64, and updates of single rows against those of the whole table."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import alone

from mocme_jax.parallel.device_axis import AXIS
from mocme_jax.training.optimizers import create_optimizers, update_rows


def test_tables_get_adagrad_and_the_rest_adam():
    rng = np.random.default_rng(0)
    shapes = {"expert_up": (2, 3), "relation": (2, 3), "core": (3,), "structure": (4, 3)}
    start = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    rate, table_rate = 0.01, 0.1
    optimizers = create_optimizers(rate, table_rate)

    def model(tree):
        own = {"expert_up": tree["expert_up"]}
        return {"params": {"encoder": own, "relation": tree["relation"], "core": tree["core"]}}

    now = [model(start), start["structure"]]
    states = [one.init(part) for one, part in zip(optimizers, now, strict=True)]
    expected = jax.tree.map(np.float64, start)
    squares, first, second = (jax.tree.map(np.zeros_like, expected) for _ in range(3))
    for step in (1, 2, 3):
        gradients = {name: (1e-3 * rng.standard_normal(x.shape)).astype(np.float32) for name, x in start.items()}
        gradients["structure"][1] = 0
        for i, part in enumerate((model(gradients), gradients["structure"])):
            updates, states[i] = optimizers[i].update(part, states[i], now[i])
            now[i] = optax.apply_updates(now[i], updates)
        for name, x in expected.items():
            g = gradients[name].astype(np.float64)
            if name in ("structure", "relation"):
                squares[name] += g**2
                total = squares[name]
                x -= np.where(total > 0, table_rate * g / np.sqrt(np.where(total > 0, total, 1)), 0)
            else:
                m, v = first[name], second[name]
                m[...], v[...] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                adam = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
                x -= rate * adam
    chex.assert_trees_all_close(now, [model(expected), expected["structure"]], rtol=1e-4, atol=1e-6)


def test_rowwise_adagrad_has_one_sum_per_row():
    """Against a loop over the rows; a row whose gradient was always 0 stays."""
    rng = np.random.default_rng(0)
    optimizer = create_optimizers(0.01, 0.1, rowwise=True).structure
    table = rng.standard_normal((5, 3)).astype(np.float32)
    state, expected, sums = optimizer.init(table), table.astype(np.float64), [0.0] * 5
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(5,)]
    for _ in range(3):
        gradients = (1e-3 * rng.standard_normal((5, 3))).astype(np.float32)
        gradients[2] = 0
        updates, state = optimizer.update(gradients, state, table)
        table = optax.apply_updates(table, updates)
        for row, gradient in enumerate(gradients.astype(np.float64)):
            sums[row] += sum(gradient**2) / 3
            if sums[row]:
                expected[row] -= 0.1 * gradient / sums[row] ** 0.5
    np.testing.assert_allclose(table, expected, rtol=1e-5)


@pytest.mark.parametrize("rowwise", [False, True])
def test_updating_the_rows_that_were_read_is_the_dense_update(rowwise):
    """Adagrad leaves the other rows alone anyway; repeats add up; on 4 devices each holds 6 of 24 rows."""
    rng, optimizer = np.random.default_rng(0), create_optimizers(0.01, 0.1, rowwise).structure
    table = jnp.asarray(rng.standard_normal((24, 3)), jnp.float32)
    whole, sparse = (table, optimizer.init(table)), (table, optimizer.init(table))
    spread = table.reshape(4, 6, 3), jax.vmap(optimizer.init)(table.reshape(4, 6, 3))
    for _ in range(3):
        ids = rng.integers(0, 12, (4, 5)).astype(np.int32)
        gradients = rng.standard_normal((4, 5, 3)).astype(np.float32)
        dense = np.zeros((24, 3), np.float32)
        np.add.at(dense, ids.reshape(-1), gradients.reshape(-1, 3))
        updates, state = optimizer.update(dense, whole[1], whole[0])
        whole = optax.apply_updates(whole[0], updates), state
        update = functools.partial(update_rows, optimizer)
        *sparse, squares = alone(functools.partial(update, split=False))(
            *sparse, ids.reshape(-1), gradients.reshape(-1, 3)
        )
        *spread, parts = jax.vmap(functools.partial(update, split=True), axis_name=AXIS)(*spread, ids, gradients)
        np.testing.assert_allclose(squares, (dense**2).sum(), rtol=1e-5)
        np.testing.assert_allclose(parts.sum(), (dense**2).sum(), rtol=1e-5)
    np.testing.assert_array_equal(sparse[0][12:], table[12:])
    chex.assert_trees_all_close(sparse, list(whole), rtol=1e-5)
    joined = jax.tree.map(lambda x, y: x.reshape(y.shape), spread, list(whole))
    chex.assert_trees_all_close(joined, list(whole), rtol=1e-5)
