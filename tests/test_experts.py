"""Factored views against the dense views that one loop over experts gives."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.method import experts

ROWS, EXPERTS, WIDTH, HIDDEN = 5, 3, 6, 4


def example(rows=ROWS, count=EXPERTS, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (rows, WIDTH), (count, WIDTH, HIDDEN), (count, HIDDEN, WIDTH)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def loop_views(part, down, up):
    """view_k(x) = x + relu(x down_k) up_k, one entity and one expert at a time, in float64."""
    part, down, up = (x.astype(np.float64) for x in (part, down, up))
    views = np.zeros((len(part), len(down), part.shape[1]))
    for e, x in enumerate(part):
        for k in range(len(down)):
            views[e, k] = x + np.maximum(x @ down[k], 0) @ up[k]
    return views


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("rows", [1, 5])
def test_factored_views_equal_the_loop(rows, count):
    part, down, up = example(rows, count)
    expected = loop_views(part, down, up)
    views = experts.expert_views(part, down, up)
    close = dict(rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(views.dense(), expected, **close)
    rng = np.random.default_rng(1)
    matrix, kernel = rng.standard_normal((WIDTH, 2)), rng.standard_normal((count, WIDTH))
    through = views.through(matrix.astype(np.float32))
    chex.assert_shape(through, (rows, count, 2))
    np.testing.assert_allclose(through, expected @ matrix, **close)
    along = [[expected[e, k] @ kernel[k] for k in range(count)] for e in range(rows)]
    np.testing.assert_allclose(views.along(kernel.astype(np.float32)), along, **close)
    # Weights that do not sum to 1, as those of ``sum`` and of a missing part.
    weights = rng.random((rows, count))
    fused = np.stack([sum(weights[e, k] * expected[e, k] for k in range(count)) for e in range(rows)])
    np.testing.assert_allclose(views.weighted(weights.astype(np.float32)), fused, **close)
    np.testing.assert_array_equal(views.weighted(np.zeros((rows, count), np.float32)), 0)


def test_gradients_of_factored_and_dense_fusion_agree():
    part, down, up = example()
    weights = jnp.asarray(np.random.default_rng(2).random((ROWS, EXPERTS)), jnp.float32)

    def factored(part, down, up):
        return jnp.sum(jnp.sin(experts.expert_views(part, down, up).weighted(weights)))

    def dense(part, down, up):
        inner = jax.nn.relu(jnp.einsum("nd,kdh->nkh", part, down))
        views = part[:, None] + jnp.einsum("nkh,khd->nkd", inner, up)
        return jnp.sum(jnp.sin(jnp.einsum("nkd,nk->nd", views, weights)))

    chex.assert_trees_all_close(
        jax.grad(factored, (0, 1, 2))(part, down, up), jax.grad(dense, (0, 1, 2))(part, down, up), rtol=1e-4, atol=1e-4
    )


def test_an_expert_without_up_is_the_identity():
    part, down, up = example()
    views = experts.expert_views(part, down, np.zeros_like(up)).dense()
    np.testing.assert_array_equal(views, np.broadcast_to(part[:, None], views.shape))


def test_project_scales_and_hides_missing_rows():
    rng = np.random.default_rng(0)
    features, kernel = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((3, 2)).astype(np.float32)
    present = np.array([True, False, True, False])
    features[1], features[3] = np.nan, np.inf

    def total(features, kernel, scale):
        return jnp.sum(experts.project(features, present, kernel, scale) ** 2)

    out = experts.project(jnp.asarray(features), present, kernel, 0.25)
    np.testing.assert_allclose(out[present], 0.25 * features[present] @ kernel, rtol=1e-5)
    np.testing.assert_array_equal(out[~present], 0)
    gradients = jax.grad(total, (0, 1, 2))(jnp.asarray(features), kernel, 0.25)
    chex.assert_tree_all_finite(gradients)
    np.testing.assert_array_equal(gradients[0][~present], 0)
    clean = np.where(present[:, None], features, 0)
    chex.assert_trees_all_equal(gradients, jax.grad(total, (0, 1, 2))(clean, kernel, 0.25))
