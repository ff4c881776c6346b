"""Fusion weights against small formulas, entity by entity."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.method import complementarity as fusion
from mocme_jax.method.encoder import FUSIONS

PRESENT = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
TEMPERATURE = 0.7


def example(seed=0):
    rng = np.random.default_rng(seed)
    return tuple((2 * rng.standard_normal(PRESENT.shape)).astype(np.float32) for _ in range(2))


def softmax_of_present(values, present):
    powers = [math.exp(v) if p else 0.0 for v, p in zip(values, present, strict=True)]
    return [p / sum(powers) if sum(powers) else 0.0 for p in powers]


def formula(kind, relevance, redundant, present):
    """One entity's weights."""
    relevance, redundant = relevance.tolist(), redundant.tolist()
    if kind == "sum":
        return [float(p) for p in present]
    if kind == "mean":
        return [p / max(1, sum(present)) for p in present]
    if kind == "best":
        winner = max((v, i) for i, v in enumerate(relevance) if present[i])[1] if any(present) else None
        return [float(i == winner) for i in range(len(present))]
    if kind == "complementarity":
        relevance = [(a - b) / TEMPERATURE for a, b in zip(relevance, redundant, strict=True)]
    return softmax_of_present(relevance, present)


@pytest.mark.parametrize("kind", FUSIONS)
def test_weights_equal_the_formula(kind):
    relevance, redundant = example()
    weights = fusion.fusion_weights(kind, relevance, redundant, PRESENT, TEMPERATURE)
    expected = [formula(kind, *row) for row in zip(relevance, redundant, PRESENT.tolist(), strict=True)]
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FUSIONS)
def test_missing_parts_weigh_nothing_whatever_is_computed_for_them(kind):
    relevance, redundant = example()

    def weigh(relevance, redundant):
        return fusion.fusion_weights(kind, relevance, redundant, PRESENT, TEMPERATURE)

    weights = np.asarray(weigh(relevance, redundant))
    assert (weights[~PRESENT] == 0).all()
    if kind != "sum":
        np.testing.assert_allclose(weights.sum(axis=1), PRESENT.any(axis=1), rtol=1e-6)
    for wild in (1e30, -1e30, 500.0):
        hidden = [np.where(PRESENT, x, np.float32(wild)) for x in (relevance, redundant)]
        np.testing.assert_array_equal(weigh(*hidden), weights)


@pytest.mark.parametrize("kind", FUSIONS)
def test_gradients_are_finite_where_all_is_missing_and_for_extreme_logits(kind):
    relevance, redundant = example()
    target = np.random.default_rng(5).standard_normal(PRESENT.shape).astype(np.float32)

    def total(relevance, redundant):
        return jnp.sum(target * fusion.fusion_weights(kind, relevance, redundant, PRESENT, TEMPERATURE))

    for scale in (1.0, 1e4, 0.0):
        gradients = jax.grad(total, (0, 1))(scale * relevance, scale * redundant)
        chex.assert_tree_all_finite(gradients)
        for gradient in gradients:
            np.testing.assert_array_equal(np.asarray(gradient)[~PRESENT], 0)


def test_all_missing_gives_a_zero_vector():
    relevance, redundant = example()
    parts = np.ones((*PRESENT.shape, 3), np.float32)
    for kind in FUSIONS:
        fused = fusion.fuse(parts, fusion.fusion_weights(kind, relevance, redundant, PRESENT, TEMPERATURE))
        np.testing.assert_array_equal(fused[3], 0)


def test_redundancy_is_the_mean_over_the_other_present_parts():
    pointwise = np.random.default_rng(0).standard_normal((5, 4, 4)).astype(np.float32)
    expected = np.zeros((5, 4))
    for e in range(5):
        for i in range(4):
            others = [pointwise[e, i, j] for j in range(4) if j != i and PRESENT[e, i] and PRESENT[e, j]]
            expected[e, i] = np.mean(others) if others else 0
    np.testing.assert_allclose(fusion.redundancy(pointwise, PRESENT), expected, rtol=1e-5, atol=1e-6)
    # Neither the diagonal nor a pair with a missing part is read.
    hidden = np.where(PRESENT[:, :, None] & PRESENT[:, None] & ~np.eye(4, dtype=bool), pointwise, np.nan)
    np.testing.assert_allclose(fusion.redundancy(hidden, PRESENT), expected, rtol=1e-5, atol=1e-6)


def test_redundant_parts_lose_weight_and_relevant_parts_gain():
    present = np.ones((1, 3), bool)
    none, some = np.zeros((1, 3), np.float32), np.array([[0, 1, 0]], np.float32)
    loses = np.asarray(fusion.complementarity_weights(none, some, present, 1.0))[0]
    gains = np.asarray(fusion.complementarity_weights(some, none, present, 1.0))[0]
    assert loses[1] < loses[0] == loses[2]
    assert gains[1] > gains[0] == gains[2]
    cold = np.asarray(fusion.complementarity_weights(some, none, present, 0.01))[0]
    np.testing.assert_allclose(cold, [0, 1, 0], atol=1e-6)


def test_best_has_the_gradient_of_the_softmax():
    relevance, _ = example()
    target = np.random.default_rng(5).standard_normal(PRESENT.shape).astype(np.float32)
    best = jax.grad(lambda x: jnp.sum(target * fusion.best_weights(x, PRESENT)))(relevance)
    soft = jax.grad(lambda x: jnp.sum(target * fusion.masked_softmax(x, PRESENT)))(relevance)
    assert float(jnp.abs(soft).max()) > 0.01
    np.testing.assert_allclose(best, soft, rtol=1e-6, atol=1e-7)


def test_fuse_is_the_weighted_sum():
    rng = np.random.default_rng(0)
    parts, weights = rng.standard_normal((5, 4, 3)), rng.random((5, 4))
    expected = [sum(weights[e, i] * parts[e, i] for i in range(4)) for e in range(5)]
    np.testing.assert_allclose(
        fusion.fuse(parts.astype(np.float32), weights.astype(np.float32)), expected, rtol=1e-5, atol=1e-6
    )
