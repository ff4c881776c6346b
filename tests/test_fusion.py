"""Fusion weights against small formulas, entity by entity."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.method import complementarity
from mocme_jax.method.complementarity import FUSIONS, Complementarity, Vectors, fuse
from mocme_jax.method.experts import expert_views

PRESENT = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
TEMPERATURE, WIDTH = 0.7, 3
PRIOR = np.array([0.5, -1.0, 2.0, 0.0], np.float32)


def made(kind):
    return Complementarity(None, TEMPERATURE) if kind == "complementarity" else FUSIONS[kind]()


def example(kind, seed=0):
    """Parts ``[5, 4, 3]``, a trained kernel or None, and redundancies ``[5, 4]``."""
    rng = np.random.default_rng(seed)
    start = made(kind).init(4, WIDTH)
    kernel = None if start is None else rng.standard_normal(start.shape).astype(np.float32)
    parts, redundant = rng.standard_normal((*PRESENT.shape, WIDTH)), 2 * rng.standard_normal(PRESENT.shape)
    return parts.astype(np.float32), kernel, redundant.astype(np.float32)


def softmax_of_present(values, present):
    powers = [math.exp(v) if p else 0.0 for v, p in zip(values, present, strict=True)]
    return [p / sum(powers) if sum(powers) else 0.0 for p in powers]


def formula(kind, parts, kernel, redundant, present):
    """One entity's weights."""
    if kind == "sum":
        return [float(p) for p in present]
    if kind == "mean":
        return [p / max(1, sum(present)) for p in present]
    if kind == "complementarity":
        logits = [(a - b) / TEMPERATURE for a, b in zip(PRIOR.tolist(), redundant.tolist(), strict=True)]
    elif kind == "gate":
        logits = [float(PRIOR[i] + parts[i] @ kernel[i]) for i in range(4)]
    else:
        logits = [float(PRIOR[i] + parts[i] @ kernel[0] / math.sqrt(WIDTH)) for i in range(4)]
    return softmax_of_present(logits, present)


@pytest.mark.parametrize("kind", FUSIONS)
def test_weights_equal_the_formula(kind):
    parts, kernel, redundant = example(kind)
    weights = made(kind).weights(Vectors(parts), PRESENT, PRIOR, kernel, redundant)
    expected = [
        formula(kind, parts[e].astype(np.float64), kernel, redundant[e], PRESENT[e].tolist()) for e in range(len(parts))
    ]
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FUSIONS)
def test_missing_parts_weigh_nothing_whatever_is_computed_for_them(kind):
    parts, kernel, redundant = example(kind)

    def weigh(parts, redundant):
        return np.asarray(made(kind).weights(Vectors(parts), PRESENT, PRIOR, kernel, redundant))

    weights = weigh(parts, redundant)
    assert (weights[~PRESENT] == 0).all()
    if kind != "sum":
        np.testing.assert_allclose(weights.sum(axis=1), PRESENT.any(axis=1), rtol=1e-6)
    for wild in (1e30, -1e30, 500.0):
        hidden = np.where(PRESENT[..., None], parts, np.float32(wild)), np.where(PRESENT, redundant, np.float32(wild))
        np.testing.assert_array_equal(weigh(*hidden), weights)


@pytest.mark.parametrize("kind", FUSIONS)
def test_gradients_are_finite_where_all_is_missing_and_for_extreme_logits(kind):
    parts, kernel, redundant = example(kind)
    target = np.random.default_rng(5).standard_normal(PRESENT.shape).astype(np.float32)

    def total(parts, redundant):
        return jnp.sum(target * made(kind).weights(Vectors(parts), PRESENT, PRIOR, kernel, redundant))

    for scale in (1.0, 1e4, 0.0):
        gradients = jax.grad(total, (0, 1))(scale * parts, scale * redundant)
        chex.assert_tree_all_finite(gradients)
        for gradient in gradients:
            np.testing.assert_array_equal(np.asarray(gradient)[~PRESENT], 0)


@pytest.mark.parametrize("kind", FUSIONS)
def test_fused_vectors_are_the_weighted_sum(kind):
    parts, kernel, _ = example(kind)
    information = np.random.default_rng(3).standard_normal((4, 4)).astype(np.float32)
    information = information + information.T if kind == "complementarity" else None
    fused = fuse(made(kind), Vectors(parts), PRESENT, PRIOR, kernel, information)
    weights = np.asarray(fused.weights, np.float64)
    expected = [sum(weights[e, i] * parts[e, i] for i in range(4)) for e in range(5)]
    np.testing.assert_allclose(fused.vectors, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(fused.vectors[3], 0)
    assert fused.redundant.any() == (kind == "complementarity")


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_part_that_is_alone_has_all_the_weight(kind):
    present = np.array([[True], [False]])
    fused = fuse(made(kind), Vectors(np.ones((2, 1, WIDTH), np.float32)), present, PRIOR[:1])
    assert fused.weights.tolist() == [[1], [0]]


def test_redundancy_is_the_mean_over_the_other_present_parts():
    information = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    expected = np.zeros((5, 4))
    for e in range(5):
        for i in range(4):
            others = [information[i, j] for j in range(4) if j != i and PRESENT[e, i] and PRESENT[e, j]]
            expected[e, i] = np.mean(others) if others else 0
    np.testing.assert_allclose(complementarity.redundancy(information, PRESENT), expected, rtol=1e-5, atol=1e-6)
    # The diagonal is not read.
    hidden = np.where(np.eye(4, dtype=bool), np.nan, information)
    np.testing.assert_allclose(complementarity.redundancy(hidden, PRESENT), expected, rtol=1e-5, atol=1e-6)


def test_redundant_parts_lose_weight_and_relevant_parts_gain():
    present = np.ones((1, 3), bool)
    none, some = np.zeros((1, 3), np.float32), np.array([[0, 1, 0]], np.float32)
    loses = np.asarray(complementarity.complementarity_weights(none, some, present))[0]
    gains = np.asarray(complementarity.complementarity_weights(some, none, present))[0]
    assert loses[1] < loses[0] == loses[2]
    assert gains[1] > gains[0] == gains[2]
    cold = np.asarray(complementarity.complementarity_weights(some, none, present, 0.01))[0]
    np.testing.assert_allclose(cold, [0, 1, 0], atol=1e-6)


def test_views_and_vectors_are_parts_alike():
    rng = np.random.default_rng(0)
    shapes = (5, 6), (3, 6, 4), (3, 4, 6)
    views = expert_views(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))
    dense = Vectors(views.dense())
    kernel, matrix = rng.standard_normal((3, 6)).astype(np.float32), rng.standard_normal((6, 2)).astype(np.float32)
    weights = rng.random((5, 3)).astype(np.float32)
    close = dict(rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(views.along(kernel), dense.along(kernel), **close)
    np.testing.assert_allclose(views.through(matrix), dense.through(matrix), **close)
    np.testing.assert_allclose(views.weighted(weights), dense.weighted(weights), **close)
