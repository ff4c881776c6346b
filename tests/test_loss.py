"""The two losses against their formulas in float64, a row at a time."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import lanes

from mocme_jax.method.losses import logistic_loss, margin_softmax_loss, softmax_loss
from mocme_jax.method.regularisers import l2, n3
from mocme_jax.parallel.device_axis import across_devices

MARGIN = 1.5


def example(seed=0, rows=5, columns=9, scale=3.0):
    rng = np.random.default_rng(seed)
    positive = (scale * rng.standard_normal(rows)).astype(np.float32)
    scores = (scale * rng.standard_normal((rows, columns))).astype(np.float32)
    negative = rng.random((rows, columns)) < 0.7
    negative[1] = False
    weights = np.where(rng.random((rows, columns)) < 0.8, 2 * rng.random((rows, columns)), 0).astype(np.float32)
    return positive, scores, negative, weights


def softmax_formula(positive, scores, negative, weights):
    losses = []
    for p, row, mask, w in zip(*(x.astype(np.float64) for x in (positive, scores, negative, weights)), strict=True):
        losses.append(-p + np.log(np.exp(p) + sum(np.exp(row) * w * mask)))
    return np.array(losses)


def logistic_formula(positive, scores, negative, weights):
    losses = []
    for p, row, mask, w in zip(*(x.astype(np.float64) for x in (positive, scores, negative, weights)), strict=True):
        own = -np.log(1 / (1 + np.exp(-(MARGIN + p))))
        others = [-w[c] * np.log(1 / (1 + np.exp(MARGIN + row[c]))) for c in range(len(row)) if mask[c]]
        losses.append(own + (np.mean(others) if others else 0))
    return np.array(losses)


def plain_softmax_formula(positive, scores, negative, weights):
    """The value does not know of weights that are the gradient's."""
    return softmax_formula(positive, scores, negative, np.ones_like(weights))


logistic = functools.partial(logistic_loss, margin=MARGIN)
LOSSES = {
    "margin softmax": (margin_softmax_loss, softmax_formula),
    "softmax": (softmax_loss, plain_softmax_formula),
    "logistic": (logistic, logistic_formula),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_equal_the_formula(name, weighted):
    loss, formula = LOSSES[name]
    positive, scores, negative, weights = example()
    expected = formula(positive, scores, negative, weights if weighted else np.ones_like(weights))
    values = loss(positive, scores, negative, weights if weighted else None)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_other_columns_are_left_out_of_value_and_gradient(name, weighted):
    loss, _ = LOSSES[name]
    positive, scores, negative, weights = example()
    weights = weights if weighted else None

    def total(scores):
        return jnp.sum(loss(positive, scores, negative, weights))

    values, gradient = jax.value_and_grad(total)(jnp.asarray(scores))
    for wild in (1e4, -1e4):
        hidden = jnp.where(negative, scores, wild)
        chex.assert_trees_all_close(jax.value_and_grad(total)(hidden), (values, gradient), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(gradient)[~negative], 0)
    assert (np.asarray(gradient)[negative] >= 0).all()


def test_a_row_without_negatives():
    positive, scores, negative, weights = example()
    for loss in (margin_softmax_loss, softmax_loss):
        assert float(loss(positive, scores, negative, weights)[1]) == pytest.approx(0, abs=1e-6)
    alone = float(logistic(positive, scores, negative, weights)[1])
    assert alone == pytest.approx(np.log1p(np.exp(-(MARGIN + positive[1].astype(np.float64)))), rel=1e-5)
    none = np.zeros((5, 0), np.float32)
    np.testing.assert_allclose(softmax_loss(positive, none, none.astype(bool), None), 0, atol=1e-6)


def test_gradient_of_softmax_is_its_probabilities():
    positive, scores, negative, weights = example(3)
    by_positive, by_scores = jax.grad(lambda p, s: jnp.sum(margin_softmax_loss(p, s, negative, weights)), (0, 1))(
        jnp.asarray(positive), jnp.asarray(scores)
    )
    terms = np.where(negative, weights, 0) * np.exp(scores.astype(np.float64))
    total = np.exp(positive.astype(np.float64)) + terms.sum(axis=1)
    np.testing.assert_allclose(by_scores, terms / total[:, None], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(by_positive, np.exp(positive) / total - 1, rtol=1e-4, atol=1e-6)


def test_weights_in_the_gradient_multiply_each_share_and_move_the_positive_by_their_sum():
    positive, scores, negative, weights = example(3)
    by_positive, by_scores = jax.grad(lambda p, s: jnp.sum(softmax_loss(p, s, negative, weights)), (0, 1))(
        jnp.asarray(positive), jnp.asarray(scores)
    )
    powers = np.where(negative, np.exp(scores.astype(np.float64)), 0)
    shares = powers / (np.exp(positive.astype(np.float64)) + powers.sum(axis=1))[:, None]
    np.testing.assert_allclose(by_scores, weights * shares, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(by_positive, -(weights * shares).sum(axis=1), rtol=1e-4, atol=1e-6)


def test_gradient_of_logistic():
    positive, scores, negative, weights = example(4)
    gradient = jax.grad(lambda s: jnp.sum(logistic(positive, s, negative, weights)))(jnp.asarray(scores))
    sigmoid = 1 / (1 + np.exp(-(MARGIN + scores.astype(np.float64))))
    count = np.maximum(negative.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(gradient, np.where(negative, weights * sigmoid, 0) / count, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_columns_may_be_spread_over_devices(name):
    """8 rows of 12 columns on 4 devices: each has 3 columns of all rows, and gets the losses of 2 rows."""
    loss, _ = LOSSES[name]
    positive, scores, negative, weights = map(jnp.asarray, example(5, rows=8, columns=12))
    part = lambda x, i: jax.lax.dynamic_slice_in_dim(x, 3 * i, 3, axis=1)  # noqa: E731

    def spread(i, positive, scores):
        own = jax.lax.dynamic_slice_in_dim(positive, 2 * i, 2)
        arguments = own, *(part(x, i) for x in (scores, negative, weights))
        return loss(*arguments, across_devices(4))

    together = lambda p, s: lanes(lambda i: spread(i, p, s), 4).reshape(-1)  # noqa: E731
    expected = loss(positive, scores, negative, weights)
    np.testing.assert_allclose(together(positive, scores), expected, rtol=1e-5, atol=1e-6)
    gradients = [
        jax.grad(lambda p, s, f=f: jnp.sum(jnp.sin(f(p, s))), (0, 1))(positive, scores)
        for f in (together, lambda p, s: loss(p, s, negative, weights))
    ]
    chex.assert_trees_all_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_scores_stay_finite(name):
    loss, _ = LOSSES[name]
    positive, scores, negative, weights = example(scale=1e4)
    value_and_gradients = jax.value_and_grad(lambda p, s: jnp.sum(loss(p, s, negative, weights)), (0, 1))
    chex.assert_tree_all_finite(value_and_gradients(jnp.asarray(positive), jnp.asarray(scores)))
    assert (np.asarray(loss(positive, scores, negative, weights)) >= 0).all()


def test_regularisers():
    moduli = np.array([[1.0, 2.0], [0.0, 3.0]], np.float32)
    np.testing.assert_allclose(n3(moduli), [9, 27])
    np.testing.assert_allclose(l2(moduli), [5, 9])
