"""EGNS: the weight of a negative from the entropy of the model's belief in it.

Rows of scores may be spread over the devices, C columns on each: what is said of a row is then said of all its columns.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.parallel.device_axis import AXIS

REFERENCES = ("absolute", "relative")
SAMPLINGS = ("uniform", "entropy")
CONFIDENT = ("entropy", "hard", "false_negative")


class EntropyWeights(NamedTuple):
    """Weights of negatives and what they came from.

    Attributes:
      weights: ``[B, C]``, mean 1 over each row's negatives, 0 elsewhere. No gradient.
      counts: float32 ``[3]``, how many negatives are easy, ambiguous, hard.
      totals: ``[3]``, the sum of the weights in each class.
    """

    weights: jax.Array
    counts: jax.Array
    totals: jax.Array


def binary_entropy(logit: jax.Array) -> jax.Array:
    """Entropy of sigmoid(logit) in bits, in [0, 1].

    With a = |logit| it is (log(1 + e^-a) + a e^-a / (1 + e^-a)) / log 2, which never takes log of 0.
    """
    a = jnp.abs(logit)
    power = jnp.exp(-a)
    return (jnp.log1p(power) + a * power / (1 + power)) / jnp.log(2.0)


def belief(scores: jax.Array, positive: jax.Array, reference: str) -> jax.Array:
    """Logits ``[B, C]`` of the model's belief in negatives, without gradient; arguments as in ``entropy_weights``."""
    scores, positive = jax.lax.stop_gradient((scores, positive))
    return scores - positive[:, None] if reference == "relative" else scores


def mean_entropy(logits: jax.Array, negative: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean binary entropy in bits of each column over the rows ``[B, C]`` that it is a negative of, and of how many."""
    count = jnp.sum(negative, axis=0)
    return jnp.sum(jnp.where(negative, binary_entropy(logits), 0), axis=0) / jnp.maximum(count, 1), count


def entropy_weights(
    scores: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    low: float,
    high: float,
    class_weights: tuple[float, float, float],
    reference: str,
    confident: str,
    answers: jax.Array,
    many: int,
    many_weights: tuple[float, float, float],
) -> EntropyWeights:
    """Easy, ambiguous and hard negatives by entropy, weighed by class, in one pass over ``[B, C]``.

    Args:
      scores: ``[B, C]``.
      positive: ``[B]``, the score of each row's true answer.
      negative: bool ``[B, C]``, False where a column is no negative of that row.
      low, high: bounds of the entropy in bits: easy < low <= ambiguous < high <= hard.
      class_weights: of easy, ambiguous and hard, before a row is brought to mean 1.
      reference: ``absolute`` takes p = sigmoid(score), ``relative`` p = sigmoid(score - positive).
      confident: what a negative with low entropy and p > 1/2 is: by its ``entropy`` easy or ambiguous, ``hard`` as the
        worst error, or a probable ``false_negative`` of weight 0.
      answers: int32 ``[B]``, how many answers of each row's question train knows.
      many: from so many on, ``many_weights`` take the place of ``class_weights``: of a question with many answers some
        are not written down, and a hard negative may be one of these. 0: nowhere.
      many_weights: of easy, ambiguous and hard, as above.
    """
    logit = belief(scores, positive, reference)
    entropy = binary_entropy(logit)
    hard = entropy >= high
    believed = ~hard & (logit > 0)
    easy = entropy < low
    if confident == "hard":
        hard, easy = hard | believed, easy & ~believed
    ambiguous = ~easy & ~hard
    weights = _by_class(easy, hard, class_weights)
    if many:
        weights = jnp.where((answers >= many)[:, None], _by_class(easy, hard, many_weights), weights)
    if confident == "false_negative":
        weights = jnp.where(believed, 0.0, weights)
    weights = normalised(weights, negative)
    classes = [c & negative for c in (easy, ambiguous, hard)]
    counts = jnp.stack([jnp.sum(c) for c in classes]).astype(jnp.float32)
    totals = jnp.stack([jnp.sum(jnp.where(c, weights, 0)) for c in classes])
    return EntropyWeights(weights, counts, totals)


def _by_class(easy: jax.Array, hard: jax.Array, weights: tuple[float, float, float]) -> jax.Array:
    """The weight of each negative's class ``[B, C]``; what is neither easy nor hard is ambiguous."""
    return jnp.where(hard, weights[2], jnp.where(easy, weights[0], weights[1]))


def self_adversarial_weights(scores: jax.Array, negative: jax.Array, temperature: float) -> jax.Array:
    """Softmax of score / temperature over a row's negatives, brought to mean 1 (Sun et al., ICLR 2019). ``[B, C]``."""
    logits = jnp.where(negative, jax.lax.stop_gradient(scores) / temperature, -jnp.inf)
    top = jax.lax.pmax(jnp.max(logits, axis=-1, keepdims=True), AXIS)
    powers = jnp.where(negative, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0)), 0)
    return normalised(powers, negative)


def normalised(weights: jax.Array, negative: jax.Array) -> jax.Array:
    """Scales each row of ``[B, C]`` to mean 1 over its negatives, 0 elsewhere; a row without weight stays 0.

    Weights that are all 1 come back exactly 1: a count divided by itself.
    """
    weights = jnp.where(negative, weights, 0)
    count = jnp.sum(negative, axis=-1, keepdims=True).astype(weights.dtype)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    count, total = jax.lax.psum((count, total), AXIS)
    return weights * jnp.where(total > 0, count / jnp.where(total > 0, total, 1), 0)
