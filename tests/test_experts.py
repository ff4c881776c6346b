"""Projections and experts against a loop over entities and experts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.method import experts

ROWS, EXPERTS, FEATURES, WIDTH, HIDDEN = 5, 3, 7, 6, 4


def example(count=EXPERTS, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (ROWS, FEATURES), (count, FEATURES, WIDTH), (count, WIDTH, HIDDEN), (count, HIDDEN, WIDTH)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("count", [1, 3])
def test_experts_equal_the_loop(count):
    features, kernel, down, up = example(count)
    present = np.array([True, False, True, True, False])
    scale = np.linspace(0.3, 0.7, count, dtype=np.float32)
    found = experts.transformed(experts.project(features, present, kernel, scale), down, up)
    chex.assert_shape(found, (count, ROWS, WIDTH))
    for k in range(count):
        for row in range(ROWS):
            x = float(scale[k]) * features[row].astype(np.float64) @ kernel[k] if present[row] else np.zeros(WIDTH)
            said = x + np.maximum(x @ down[k], 0) @ up[k]
            np.testing.assert_allclose(found[k, row], said, rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_never_read():
    features, kernel, down, up = example()
    present = np.array([True, False, True, True, False])

    def total(kernel, features):
        return jnp.sum(
            jnp.sin(
                experts.transformed(
                    experts.project(features, present, kernel, np.full(EXPERTS, 0.3, np.float32)), down, up
                )
            )
        )

    clean = jax.value_and_grad(total)(kernel, features)
    for value in (np.nan, np.inf, 1e30):
        hidden = np.where(present[:, None], features, np.float32(value))
        chex.assert_trees_all_equal(jax.value_and_grad(total)(kernel, hidden), clean)
