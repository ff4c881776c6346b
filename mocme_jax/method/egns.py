"""EGNS: entropy-guided negative sampling, which weights negatives by the entropy of the model's belief in them.

Rows are queries and columns are candidates. Several devices may each hold some columns of a row. The argument
``across`` then reduces over all of them; see ``Across``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.method.across import LOCAL, Across

CLASSES = ("easy", "ambiguous", "hard")
MANY_WEIGHTS = (1.0, 1.0, 0.5)
"""Class weights of queries with many known answers. Their hard negatives may be true answers that are missing from the
graph.
"""
ADVERSARIAL_TEMPERATURE = 1.0
EVEN = 0.3
PACE = 0.2
"""The fraction by which an entity's running mean entropy moves towards its mean in a step."""


class Weights(NamedTuple):
    """Weights of negatives, and their totals by class.

    Attributes:
      values: ``[B, C]``, mean 1 over the negatives of each row and 0 elsewhere, without gradient. None: all weights are
        1.
      counts: float32 ``[3]``, the numbers of easy, ambiguous and hard negatives. None if there are no classes.
      totals: ``[3]``, the sums of the weights of each class. None if there are no classes.
    """

    values: jax.Array | None
    counts: jax.Array | None = None
    totals: jax.Array | None = None


class Classes(NamedTuple):
    """The classes of negatives. A negative that is neither easy nor hard is ambiguous.

    Attributes:
      easy: bool ``[B, C]``, negatives of low entropy.
      hard: bool ``[B, C]``, negatives of high entropy.
      false: bool ``[B, C]``, negatives that are assumed to be true answers missing from the graph. They get weight 0
        and still count in their class. None: there are none.
    """

    easy: jax.Array
    hard: jax.Array
    false: jax.Array | None = None


def binary_entropy(logit: jax.Array) -> jax.Array:
    """Compute the entropy of ``sigmoid(logit)`` in bits, in [0, 1].

    With ``a = |logit|`` it is ``(log(1 + e^-a) + a e^-a / (1 + e^-a)) / log 2``, which never takes the log of 0.
    """
    a = jnp.abs(logit)
    power = jnp.exp(-a)
    return (jnp.log1p(power) + a * power / (1 + power)) / jnp.log(2.0)


def relative(scores: jax.Array, positive: jax.Array) -> jax.Array:
    """Compute the logits that candidates rank above the answer: the score minus the score of the answer.

    Args:
      scores: ``[B, C]``, scores of the candidates.
      positive: ``[B]``, score of the answer.

    Returns:
      ``[B, C]``, without gradient.
    """
    scores, positive = jax.lax.stop_gradient((scores, positive))
    return scores - positive[:, None]


def absolute(scores: jax.Array, positive: jax.Array) -> jax.Array:
    """Compute the logits that candidates are true, which are their scores.

    Args:
      scores: ``[B, C]``, scores of the candidates.
      positive: unused.

    Returns:
      ``[B, C]``, without gradient.
    """
    del positive
    return jax.lax.stop_gradient(scores)


REFERENCES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"absolute": absolute, "relative": relative}


def mean_entropy(logits: jax.Array, negative: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute the mean entropy of each candidate over the queries of which it is a negative.

    Args:
      logits: ``[B, C]``.
      negative: bool ``[B, C]``.

    Returns:
      The mean binary entropy in bits ``[C]``, and the number of these queries ``[C]``.
    """
    count = jnp.sum(negative, axis=0)
    return jnp.sum(jnp.where(negative, binary_entropy(logits), 0), axis=0) / jnp.maximum(count, 1), count


def classify(logits: jax.Array, low: float, high: float) -> Classes:
    """Classify negatives by entropy: easy < low <= ambiguous < high <= hard.

    Args:
      logits: ``[B, C]``.
      low: bound in bits.
      high: bound in bits.
    """
    entropy = binary_entropy(logits)
    return Classes(entropy < low, entropy >= high)


def by_entropy(classes: Classes, logits: jax.Array) -> Classes:
    """Leave confident errors (low entropy, p > 1/2) in the class of their entropy."""
    del logits
    return classes


def confident_are_hard(classes: Classes, logits: jax.Array) -> Classes:
    """Make confident errors (low entropy, p > 1/2) hard, because no error is worse."""
    confident = ~classes.hard & (logits > 0)
    return Classes(classes.easy & ~confident, classes.hard | confident)


def confident_are_false(classes: Classes, logits: jax.Array) -> Classes:
    """Treat confident errors (low entropy, p > 1/2) as true answers that are missing from the graph."""
    return classes._replace(false=~classes.hard & (logits > 0))


CONFIDENT: dict[str, Callable[[Classes, jax.Array], Classes]] = {
    "entropy": by_entropy,
    "hard": confident_are_hard,
    "false_negative": confident_are_false,
}


def weigh_classes(classes: Classes, weights: tuple[float, float, float]) -> jax.Array:
    """Return the weight of each negative's class, ``[B, C]``.

    Args:
      classes: the classes.
      weights: the weights of easy, ambiguous and hard negatives.
    """
    return jnp.where(classes.hard, weights[2], jnp.where(classes.easy, weights[0], weights[1]))


def entropy_weights(
    logits: jax.Array,
    negative: jax.Array,
    *,
    low: float,
    high: float,
    class_weights: tuple[float, float, float],
    confident: Callable[[Classes, jax.Array], Classes] = by_entropy,
    many: jax.Array | None = None,
    many_weights: tuple[float, float, float] = MANY_WEIGHTS,
    across: Across = LOCAL,
) -> Weights:
    """Classify negatives as easy, ambiguous or hard by entropy and weight them by class, in one pass over ``[B, C]``.

    Args:
      logits: ``[B, C]``, from ``relative`` or ``absolute``.
      negative: bool ``[B, C]``, False where the candidate is not a negative of the query.
      low: upper bound of the entropy of easy negatives, in bits.
      high: lower bound of the entropy of hard negatives, in bits.
      class_weights: the weights of easy, ambiguous and hard negatives, before each row is scaled to mean 1.
      confident: decides the class of confident errors; see ``CONFIDENT``.
      many: bool ``[B]``, queries that use ``many_weights``. None: no query.
      many_weights: the class weights of these queries.
      across: reduces over all columns. ``counts`` and ``totals`` of the result cover the local columns only.
    """
    classes = confident(classify(logits, low, high), logits)
    weights = weigh_classes(classes, class_weights)
    if many is not None:
        weights = jnp.where(many[:, None], weigh_classes(classes, many_weights), weights)
    if classes.false is not None:
        weights = jnp.where(classes.false, 0.0, weights)
    weights = normalised(weights, negative, across)
    members = [c & negative for c in (classes.easy, ~classes.easy & ~classes.hard, classes.hard)]
    counts = jnp.stack([jnp.sum(c) for c in members]).astype(jnp.float32)
    totals = jnp.stack([jnp.sum(jnp.where(c, weights, 0)) for c in members])
    return Weights(weights, counts, totals)


def self_adversarial_weights(
    scores: jax.Array, negative: jax.Array, temperature: float = ADVERSARIAL_TEMPERATURE, across: Across = LOCAL
) -> jax.Array:
    """Compute self-adversarial weights: a softmax of score / temperature over the negatives of a row, scaled to mean 1.

    Source: Sun et al., ICLR 2019.

    Args:
      scores: ``[B, C]``.
      negative: bool ``[B, C]``.
      temperature: the temperature of the softmax.
      across: reduces over all columns.

    Returns:
      ``[B, C]``, without gradient.
    """
    logits = jnp.where(negative, jax.lax.stop_gradient(scores) / temperature, -jnp.inf)
    top = across.max(jnp.max(logits, axis=-1, keepdims=True))
    powers = jnp.where(negative, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0)), 0)
    return normalised(powers, negative, across)


def same_pull(weights: jax.Array, scores: jax.Array, negative: jax.Array, across: Across = LOCAL) -> jax.Array:
    """Compute one weight for all negatives of a row that keeps their total pull in the softmax loss.

    The softmax loss pulls a negative by its softmax share times its weight. The result is therefore the mean of the
    weights, weighted by these shares.

    Args:
      weights: ``[B, C]``.
      scores: ``[B, C]``.
      negative: bool ``[B, C]``.
      across: reduces over all columns.

    Returns:
      ``[B, C]``, 0 where the candidate is not a negative.
    """
    logits = jnp.where(negative, jax.lax.stop_gradient(scores), -jnp.inf)
    top = across.max(jnp.max(logits, axis=-1, keepdims=True))
    powers = jnp.where(negative, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0)), 0)
    pull, plain = (across.sum(jnp.sum(x, axis=-1, keepdims=True)) for x in (weights * powers, powers))
    return jnp.where(negative, pull / jnp.where(plain > 0, plain, 1), 0)


def normalised(weights: jax.Array, negative: jax.Array, across: Across = LOCAL) -> jax.Array:
    """Scale each row to mean 1 over its negatives and 0 elsewhere. A row without weight stays 0.

    Weights that are all 1 stay exactly 1, because a count is divided by itself.

    Args:
      weights: ``[B, C]``.
      negative: bool ``[B, C]``.
      across: reduces over all columns.

    Returns:
      ``[B, C]``.
    """
    weights = jnp.where(negative, weights, 0)
    count = across.sum(jnp.sum(negative, axis=-1, keepdims=True).astype(weights.dtype))
    total = across.sum(jnp.sum(weights, axis=-1, keepdims=True))
    return weights * jnp.where(total > 0, count / jnp.where(total > 0, total, 1), 0)


def guided_pool(key: jax.Array, entropy: jax.Array, size: int, even: float = EVEN) -> jax.Array:
    """Draw distinct entities without replacement, with odds ``even + (1 - even) * entropy / mean entropy``.

    The entities with the largest log odds plus Gumbel noise are such a sample (Efraimidis and Spirakis, 2006). Each
    entity has its own noise, so a rounding error in the odds of one entity does not affect the others.

    Args:
      key: PRNG key.
      entropy: ``[N]``, not negative. If all are 0, the sample is uniform.
      size: the number of entities C, at most N.
      even: the share of the odds that all entities have equally, in [0, 1].

    Returns:
      int32 ``[C]``, in no particular order.
    """
    mean = jnp.mean(entropy)
    odds = even + (1 - even) * jnp.where(mean > 0, entropy / jnp.where(mean > 0, mean, 1), 1)
    return jax.lax.top_k(jnp.log(odds) + jax.random.gumbel(key, entropy.shape), size)[1].astype(jnp.int32)


class Seen(NamedTuple):
    """The entropies that one step observed for the candidates in n columns.

    Attributes:
      ids: int32 ``[n]``, entities.
      entropy: ``[n]``, mean entropy in bits over the queries of which the entity is a negative.
      counts: bool ``[n]``, whether there is such a query. If an entity occurs in two columns, only one counts.
    """

    ids: jax.Array
    entropy: jax.Array
    counts: jax.Array


def remembered(entropy: jax.Array, seen: Seen, across: Across = LOCAL) -> jax.Array:
    """Update the running mean entropies with the observations of a step.

    Args:
      entropy: ``[N]``, running mean entropies in bits; see ``guided_pool``.
      seen: the observations.
      across: reduces over all columns.

    Returns:
      ``[N]``.
    """
    steps = jnp.where(seen.counts, PACE * (seen.entropy - entropy[seen.ids]), 0)
    return entropy + across.sum(jnp.zeros_like(entropy).at[seen.ids].add(steps))


# (scores [B, C], positive [B], negative [B, C], known answers of each query int32 [B], across) -> Weights
Weighting = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Across], Weights]


def uniform(scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
    """Give all negatives the same weight."""
    del scores, positive, negative, answers, across
    return Weights(None)


def self_adversarial(scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
    """Weight negatives by their own scores; see ``self_adversarial_weights``."""
    del positive, answers
    return Weights(self_adversarial_weights(scores, negative, across=across))


@dataclasses.dataclass(frozen=True)
class EntropyGuided:
    """A weighting of negatives by the class of their entropy; see ``entropy_weights``.

    Attributes:
      low: negatives with an entropy below this many bits are easy.
      high: negatives with an entropy of this many bits or more are hard.
      class_weights: the weights of easy, ambiguous and hard negatives.
      reference: the belief whose entropy is taken, ``relative`` or ``absolute``.
      confident: decides the class of confident errors; see ``CONFIDENT``.
      many: queries with at least this many known answers in train use ``MANY_WEIGHTS``. 0: no query.
    """

    low: float
    high: float
    class_weights: tuple[float, float, float]
    reference: Callable[[jax.Array, jax.Array], jax.Array] = relative
    confident: Callable[[Classes, jax.Array], Classes] = by_entropy
    many: int = 0

    def __call__(self, scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
        """Compute the weights of the negatives."""
        return entropy_weights(
            self.reference(scores, positive),
            negative,
            low=self.low,
            high=self.high,
            class_weights=self.class_weights,
            confident=self.confident,
            many=answers >= self.many if self.many else None,
            across=across,
        )


@dataclasses.dataclass(frozen=True)
class Unsorted:
    """A control for ``EntropyGuided``: the same total pull per query, but equal weights for all its negatives.

    Attributes:
      guided: the weighting that sets the total pull.
    """

    guided: EntropyGuided

    def __call__(self, scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
        """Compute the weights of the negatives."""
        weights: Any = self.guided(scores, positive, negative, answers, across).values
        return Weights(same_pull(weights, scores, negative, across))
