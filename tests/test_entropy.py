"""EGNS weights against a scalar loop, and weights of 1 against the plain losses, to the last bit."""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import lanes

from mocme_jax.method import egns
from mocme_jax.method.egns import (
    CONFIDENT,
    REFERENCES,
    binary_entropy,
    entropy_weights,
    mean_entropy,
    self_adversarial_weights,
)
from mocme_jax.method.losses import logistic_loss, margin_softmax_loss, softmax_loss
from mocme_jax.parallel.device_axis import across_devices

LOW, HIGH = 0.4, 0.8
CLASS_WEIGHTS = (0.5, 1.0, 3.0)
# Of questions with so many known answers, from MANY on by other weights.
ANSWERS, MANY, MANY_WEIGHTS = np.array([1, 4, 3, 9, 3, 2], np.int32), 3, (1.0, 0.75, 0.25)


def entropy_bits(logit):
    """Binary entropy of sigmoid(logit) in float64; the small probability is taken from the tail."""
    small = 1 / (1 + math.exp(min(abs(logit), 700)))
    return -(small * math.log(small) + (1 - small) * math.log1p(-small)) / math.log(2)


def example(seed=0, rows=6, columns=40):
    rng = np.random.default_rng(seed)
    scores = (4 * rng.standard_normal((rows, columns))).astype(np.float32)
    positive = (2 * rng.standard_normal(rows)).astype(np.float32)
    negative = rng.random((rows, columns)) < 0.8
    negative[2] = False
    negative[3, 1:] = False
    return scores, positive, negative


def weigh(scores, positive, negative, reference="absolute", confident="entropy", class_weights=CLASS_WEIGHTS, many=0):
    return entropy_weights(
        REFERENCES[reference](jnp.asarray(scores), jnp.asarray(positive)),
        jnp.asarray(negative),
        low=LOW,
        high=HIGH,
        class_weights=class_weights,
        confident=CONFIDENT[confident],
        many=jnp.asarray(ANSWERS[: len(scores)]) >= many if many else None,
        many_weights=MANY_WEIGHTS,
    )


def adversarial(scores, negative, temperature):
    return self_adversarial_weights(jnp.asarray(scores), jnp.asarray(negative), temperature)


def loop_weights(scores, positive, negative, reference, confident, many=0):
    """Weights, and (class, weight) of every negative, one at a time."""
    weights, members = np.zeros(scores.shape), []
    for b in range(len(scores)):
        row = {}
        for c in range(scores.shape[1]):
            if not negative[b, c]:
                continue
            logit = float(scores[b, c]) - (float(positive[b]) if reference == "relative" else 0.0)
            bits = entropy_bits(logit)
            kind = 0 if bits < LOW else 1 if bits < HIGH else 2
            class_weights = MANY_WEIGHTS if many and ANSWERS[b] >= many else CLASS_WEIGHTS
            if kind != 2 and logit > 0 and confident == "hard":
                kind = 2
            weight = class_weights[kind]
            if kind != 2 and logit > 0 and confident == "false_negative":
                weight = 0.0
            row[c] = kind, weight
        total = sum(weight for _, weight in row.values())
        for c, (kind, weight) in row.items():
            weights[b, c] = weight * len(row) / total if total else 0.0
            members.append((kind, weights[b, c]))
    return weights, members


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("confident", CONFIDENT)
@pytest.mark.parametrize("many", [0, MANY])
def test_weights_equal_the_loop(reference, confident, many):
    scores, positive, negative = example()
    result = weigh(scores, positive, negative, reference, confident, many=many)
    expected, members = loop_weights(scores, positive, negative, reference, confident, many)
    np.testing.assert_allclose(result.values, expected, rtol=1e-5, atol=1e-6)
    for kind in range(3):
        own = [weight for k, weight in members if k == kind]
        assert own, "the example must hold every class"
        assert float(result.counts[kind]) == len(own)
        assert float(result.totals[kind]) == pytest.approx(np.sum(own), rel=1e-5)


def test_columns_on_eight_devices_are_of_the_classes_and_weights_of_one():
    scores, positive, negative = example()
    logits, whole = jnp.asarray(scores - positive[:, None]), weigh(scores, positive, negative, "relative")

    def part(device):
        own, mask = (jax.lax.dynamic_slice_in_dim(x, 5 * device, 5, axis=1) for x in (logits, jnp.asarray(negative)))
        choices = dict(low=LOW, high=HIGH, class_weights=CLASS_WEIGHTS, across=across_devices(8))
        return entropy_weights(own, mask, **choices)

    parts = lanes(part, 8)
    np.testing.assert_allclose(np.concatenate(parts.values, axis=1), whole.values, rtol=1e-6)
    np.testing.assert_array_equal(parts.counts.sum(axis=0), whole.counts)
    np.testing.assert_allclose(parts.totals.sum(axis=0), whole.totals, rtol=1e-6)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("confident", CONFIDENT)
def test_rows_have_mean_one_over_their_negatives(reference, confident):
    scores, positive, negative = example(1)
    weights = np.asarray(weigh(scores, positive, negative, reference, confident).values)
    assert (weights[~negative] == 0).all()
    assert (weights >= 0).all()
    for row, mask in zip(weights, negative, strict=True):
        if mask.any() and row.any():
            assert row[mask].mean() == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(weights[2], 0)


def test_thresholds_belong_to_the_class_above():
    """Easy < low <= ambiguous < high <= hard."""
    scores = np.array([[-3.0, -1.0, 0.0]], np.float32)
    bits = np.asarray(binary_entropy(jnp.asarray(scores)))[0]
    assert bits[0] < bits[1] < bits[2] == 1
    arguments = jnp.asarray(scores), jnp.ones((1, 3), bool)
    for low, high, classes in [
        (float(bits[0]), float(bits[1]), (1, 2, 2)),
        (float(bits[1]), 1.0, (0, 1, 2)),
        (float(np.nextafter(bits[1], np.float32(2))), 1.0, (0, 0, 2)),
        (0.0, 2.0, (1, 1, 1)),
    ]:
        result = entropy_weights(*arguments, low=low, high=high, class_weights=(1.0, 2.0, 4.0))
        expected = np.array([(1.0, 2.0, 4.0)[k] for k in classes])
        np.testing.assert_allclose(result.values[0], expected / expected.mean(), rtol=1e-6)
        np.testing.assert_array_equal(result.counts, [classes.count(k) for k in range(3)])


def test_a_confident_error_is_easy_hard_or_no_negative():
    """A negative far above, beside one far below and one at the boundary."""
    scores, negative = np.array([[9.0, -9.0, 0.0]], np.float32), np.ones((1, 3), bool)
    positive = np.zeros(1, np.float32)
    weights = {kind: np.asarray(weigh(scores, positive, negative, "absolute", kind).values)[0] for kind in CONFIDENT}
    assert weights["entropy"][0] == weights["entropy"][1] < weights["entropy"][2]
    assert weights["hard"][0] == weights["hard"][2] > weights["hard"][1]
    assert weights["false_negative"][0] == 0 < weights["false_negative"][1]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("value", [1.0, 3.7])
def test_equal_class_weights_are_the_plain_loss_to_the_last_bit(compiled, value):
    """``false_negative`` is left out: it drops negatives, whatever the classes weigh."""
    scores, positive, negative = example(2)
    run = jax.jit if compiled else lambda f: f
    mask = jnp.asarray(negative)
    for reference, confident in itertools.product(REFERENCES, ("entropy", "hard")):
        weights = weigh(scores, positive, negative, reference, confident, (value,) * 3).values
        if value == 1:
            np.testing.assert_array_equal(weights, negative.astype(np.float32))
        else:
            np.testing.assert_allclose(weights, negative, rtol=1e-6)
            continue
        losses = [
            lambda p, s, w: margin_softmax_loss(p, s, mask, w),
            lambda p, s, w: softmax_loss(p, s, mask, w),
            lambda p, s, w: logistic_loss(p, s, mask, w, margin=2.5),
        ]
        for loss in losses:
            weighed = run(lambda p, s, loss=loss, w=weights: loss(p, s, w))(positive, scores)
            plain = run(lambda p, s, loss=loss: loss(p, s, None))(positive, scores)
            np.testing.assert_array_equal(weighed, plain)


def test_no_gradient_flows_through_weights():
    scores, positive, negative = example()

    def total(scores, positive, reference, confident):
        weights = weigh(scores, positive, negative, reference, confident).values
        return jnp.sum(scores * 0 + weights * weights) + jnp.sum(adversarial(scores, negative, 0.5) ** 2)

    for reference, confident in itertools.product(REFERENCES, CONFIDENT):
        gradients = jax.grad(total, (0, 1))(jnp.asarray(scores), jnp.asarray(positive), reference, confident)
        chex.assert_trees_all_equal(gradients, jax.tree.map(jnp.zeros_like, gradients))


def test_binary_entropy_in_float64_and_at_extremes():
    logits = np.array([-1e4, -200, -90, -30, -10, -3, -1, -1e-3, 0, 1e-3, 1, 3, 10, 30, 90, 200, 1e4], np.float32)
    bits = np.asarray(binary_entropy(jnp.asarray(logits)))
    expected = [0.0 if abs(x) > 87 else entropy_bits(float(x)) for x in logits]
    np.testing.assert_allclose(bits, expected, rtol=2e-6, atol=1e-30)
    assert ((bits >= 0) & (bits <= 1)).all()
    assert bits[8] == 1
    chex.assert_tree_all_finite(jax.vmap(jax.grad(binary_entropy))(jnp.asarray(logits)))


def test_extreme_scores_give_finite_weights():
    scores = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4]], np.float32)
    positive, negative = np.array([-1e4, 1e4, 0], np.float32), np.ones((3, 3), bool)
    for reference, confident in itertools.product(REFERENCES, CONFIDENT):
        chex.assert_tree_all_finite(weigh(scores, positive, negative, reference, confident))
    chex.assert_tree_all_finite(adversarial(scores, negative, 0.1))


def test_self_adversarial_is_the_softmax_brought_to_mean_one():
    scores, _, negative = example()
    weights = adversarial(scores, negative, 0.5)
    expected = np.zeros(scores.shape)
    for b, mask in enumerate(negative):
        powers = np.exp(scores[b, mask].astype(np.float64) / 0.5)
        expected[b, mask] = powers / powers.sum() * mask.sum() if mask.any() else 0
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


def test_normalised_leaves_a_row_without_weight_at_zero():
    weights = np.array([[0.0, 0.0], [2.0, 6.0], [2.0, 6.0]], np.float32)
    negative = np.array([[True, True], [True, True], [True, False]])
    np.testing.assert_allclose(egns.normalised(weights, negative), [[0, 0], [0.5, 1.5], [1, 0]])


@pytest.mark.parametrize("reference", REFERENCES)
def test_mean_entropy_of_a_column_is_over_the_rows_that_it_is_a_negative_of(reference):
    scores, positive, negative = example()
    negative[:, 5] = False
    mean, count = mean_entropy(REFERENCES[reference](*map(jnp.asarray, (scores, positive))), jnp.asarray(negative))
    for c in range(scores.shape[1]):
        rows = np.flatnonzero(negative[:, c])
        bits = [entropy_bits(float(scores[b, c]) - (reference == "relative") * float(positive[b])) for b in rows]
        assert count[c] == len(rows)
        assert mean[c] == pytest.approx(np.mean(bits) if bits else 0, rel=1e-4, abs=1e-6)


def test_the_control_pulls_as_hard_and_does_not_sort():
    """Weight times share of the softmax adds up to the same in each row, by a loop in float64; on devices too."""
    scores, positive, negative = example()
    guided = egns.EntropyGuided(LOW, HIGH, CLASS_WEIGHTS)
    arguments = tuple(map(jnp.asarray, (scores, positive, negative, ANSWERS)))
    weights, control = (np.asarray(one(*arguments).values) for one in (guided, egns.Unsorted(guided)))
    for b in range(len(scores)):
        own = negative[b]
        assert (control[b, ~own] == 0).all()
        if own.any():
            powers = np.exp(scores[b, own].astype(np.float64))
            assert len(set(control[b, own])) == 1
            assert np.sum(control[b, own] * powers) == pytest.approx(np.sum(weights[b, own] * powers), rel=1e-5)

    def part(device):
        own, mask = (jax.lax.dynamic_slice_in_dim(x, 5 * device, 5, axis=1) for x in (arguments[0], arguments[2]))
        return egns.Unsorted(guided)(own, arguments[1], mask, arguments[3], across_devices(8)).values

    np.testing.assert_allclose(np.concatenate(lanes(part, 8), axis=1), control, rtol=1e-5)
    gradients = [
        jax.grad(lambda s, w=w: jnp.sum(softmax_loss(arguments[1], s, arguments[2], jnp.asarray(w))))(arguments[0])
        for w in (weights, control)
    ]
    np.testing.assert_allclose(gradients[0].sum(axis=1), gradients[1].sum(axis=1), rtol=1e-4, atol=1e-6)
