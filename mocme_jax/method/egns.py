"""EGNS: the weight of a negative from the entropy of the model's belief in it.

Rows are queries, columns are candidates. ``across`` joins holders of the columns of one row; see ``Across``.
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
"""Class weights for queries with many known answers, whose hard negatives may be answers that nobody wrote down."""
ADVERSARIAL_TEMPERATURE = 1.0
EVEN = 0.3
PACE = 0.2
"""How far an entity's running mean entropy moves towards the mean of a step."""


class Weights(NamedTuple):
    """Weights of negatives and how they were shared out.

    Attributes:
      values: ``[B, C]``, mean 1 over the negatives of each row, 0 elsewhere, without gradient; None means all 1.
      counts: float32 ``[3]``, the number of easy, ambiguous and hard negatives; None where there are no classes.
      totals: ``[3]``, the sum of the weights in each class; None where there are no classes.
    """

    values: jax.Array | None
    counts: jax.Array | None = None
    totals: jax.Array | None = None


class Classes(NamedTuple):
    """Classes of negatives, bool ``[B, C]`` each; what is neither easy nor hard is ambiguous.

    Attributes:
      easy: negatives of low entropy.
      hard: negatives of high entropy.
      false: negatives taken for answers that nobody wrote down; they weigh 0 and stay in their class.
    """

    easy: jax.Array
    hard: jax.Array
    false: jax.Array | None = None


def binary_entropy(logit: jax.Array) -> jax.Array:
    """Entropy of sigmoid(logit) in bits, in [0, 1].

    With ``a = |logit|`` it is ``(log(1 + e^-a) + a e^-a / (1 + e^-a)) / log 2``, which never takes the log of 0.
    """
    a = jnp.abs(logit)
    power = jnp.exp(-a)
    return (jnp.log1p(power) + a * power / (1 + power)) / jnp.log(2.0)


def relative(scores: jax.Array, positive: jax.Array) -> jax.Array:
    """Logits ``[B, C]`` of being ranked above the answer, from scores ``[B, C]`` and ``[B]``; no gradient."""
    scores, positive = jax.lax.stop_gradient((scores, positive))
    return scores - positive[:, None]


def absolute(scores: jax.Array, positive: jax.Array) -> jax.Array:
    """Logits ``[B, C]`` of being true, which are the scores themselves; no gradient."""
    del positive
    return jax.lax.stop_gradient(scores)


REFERENCES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"absolute": absolute, "relative": relative}


def mean_entropy(logits: jax.Array, negative: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean binary entropy in bits of each column over the rows ``[B, C]`` that it is a negative of, and of how many."""
    count = jnp.sum(negative, axis=0)
    return jnp.sum(jnp.where(negative, binary_entropy(logits), 0), axis=0) / jnp.maximum(count, 1), count


def classify(logits: jax.Array, low: float, high: float) -> Classes:
    """Easy < low <= ambiguous < high <= hard, by the entropy in bits of logits ``[B, C]``."""
    entropy = binary_entropy(logits)
    return Classes(entropy < low, entropy >= high)


def by_entropy(classes: Classes, logits: jax.Array) -> Classes:
    """Leaves a confident error (low entropy, p > 1/2) in the class that its entropy gives it."""
    del logits
    return classes


def confident_are_hard(classes: Classes, logits: jax.Array) -> Classes:
    """Makes a confident error (low entropy, p > 1/2) hard: no error is worse."""
    confident = ~classes.hard & (logits > 0)
    return Classes(classes.easy & ~confident, classes.hard | confident)


def confident_are_false(classes: Classes, logits: jax.Array) -> Classes:
    """Takes a confident error (low entropy, p > 1/2) for a true triple that nobody wrote down."""
    return classes._replace(false=~classes.hard & (logits > 0))


CONFIDENT: dict[str, Callable[[Classes, jax.Array], Classes]] = {
    "entropy": by_entropy,
    "hard": confident_are_hard,
    "false_negative": confident_are_false,
}


def weigh_classes(classes: Classes, weights: tuple[float, float, float]) -> jax.Array:
    """The weight of each negative's class ``[B, C]``; ``weights`` are those of easy, ambiguous and hard."""
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
    """Sorts negatives into easy, ambiguous and hard by entropy and weighs the classes, in one pass over ``[B, C]``.

    Args:
      logits: ``[B, C]``, from ``relative`` or ``absolute``.
      negative: bool ``[B, C]``, False where a column is no negative of that row.
      low, high: bounds of the entropy in bits.
      class_weights: of easy, ambiguous and hard, before a row is brought to mean 1.
      confident: what a confident error counts as; see ``CONFIDENT``.
      many: bool ``[B]``, rows whose classes weigh ``many_weights``; None for no row.
      many_weights: of easy, ambiguous and hard in those rows.
      across: joins the holders of columns. ``counts`` and ``totals`` are of one's own columns.
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
    """Softmax of score / temperature over a row's negatives, brought to mean 1 (Sun et al., ICLR 2019). ``[B, C]``."""
    logits = jnp.where(negative, jax.lax.stop_gradient(scores) / temperature, -jnp.inf)
    top = across.max(jnp.max(logits, axis=-1, keepdims=True))
    powers = jnp.where(negative, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0)), 0)
    return normalised(powers, negative, across)


def same_pull(weights: jax.Array, scores: jax.Array, negative: jax.Array, across: Across = LOCAL) -> jax.Array:
    """One weight for all negatives of a row, with which they are pulled as hard in all as with these: ``[B, C]``.

    The softmax loss pulls a negative by its share of the softmax, times its weight. So this is the mean weight by
    these shares.
    """
    logits = jnp.where(negative, jax.lax.stop_gradient(scores), -jnp.inf)
    top = across.max(jnp.max(logits, axis=-1, keepdims=True))
    powers = jnp.where(negative, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0)), 0)
    pull, plain = (across.sum(jnp.sum(x, axis=-1, keepdims=True)) for x in (weights * powers, powers))
    return jnp.where(negative, pull / jnp.where(plain > 0, plain, 1), 0)


def normalised(weights: jax.Array, negative: jax.Array, across: Across = LOCAL) -> jax.Array:
    """Scales each row of ``[B, C]`` to mean 1 over its negatives, 0 elsewhere; a row without weight stays 0.

    Weights that are all 1 come back exactly 1: a count divided by itself.
    """
    weights = jnp.where(negative, weights, 0)
    count = across.sum(jnp.sum(negative, axis=-1, keepdims=True).astype(weights.dtype))
    total = across.sum(jnp.sum(weights, axis=-1, keepdims=True))
    return weights * jnp.where(total > 0, count / jnp.where(total > 0, total, 1), 0)


def guided_pool(key: jax.Array, entropy: jax.Array, size: int, even: float = EVEN) -> jax.Array:
    """Draws distinct entities without replacement, with odds ``even + (1 - even) * entropy / mean entropy``.

    The greatest of log odds + Gumbel noise are such a sample (Efraimidis and Spirakis, 2006). An entity's noise is its
    own, so that a rounding error in the odds of one changes no other's place.

    Args:
      key: PRNG key.
      entropy: ``[N]``, not negative; if all are 0, the sample is uniform.
      size: C <= N.
      even: in [0, 1], the part of the odds that all entities share equally.

    Returns:
      int32 ``[C]``, in no order.
    """
    mean = jnp.mean(entropy)
    odds = even + (1 - even) * jnp.where(mean > 0, entropy / jnp.where(mean > 0, mean, 1), 1)
    return jax.lax.top_k(jnp.log(odds) + jax.random.gumbel(key, entropy.shape), size)[1].astype(jnp.int32)


class Seen(NamedTuple):
    """What a step has seen of the candidates in n columns.

    Attributes:
      ids: int32 ``[n]``, entities.
      entropy: ``[n]``, mean entropy in bits of the belief in each, over the queries that it is a negative of.
      counts: bool ``[n]``, whether there are any; of an entity that stands twice, one column counts.
    """

    ids: jax.Array
    entropy: jax.Array
    counts: jax.Array


def remembered(entropy: jax.Array, seen: Seen, across: Across = LOCAL) -> jax.Array:
    """Moves the running mean entropies ``[N]`` towards what a step has seen; see ``guided_pool``."""
    steps = jnp.where(seen.counts, PACE * (seen.entropy - entropy[seen.ids]), 0)
    return entropy + across.sum(jnp.zeros_like(entropy).at[seen.ids].add(steps))


# (scores [B, C], positive [B], negative [B, C], known answers of each query int32 [B], across) -> Weights
Weighting = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Across], Weights]


def uniform(scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
    """Every negative weighs the same."""
    del scores, positive, negative, answers, across
    return Weights(None)


def self_adversarial(scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
    """Negatives weigh by their own score; see ``self_adversarial_weights``."""
    del positive, answers
    return Weights(self_adversarial_weights(scores, negative, across=across))


@dataclasses.dataclass(frozen=True)
class EntropyGuided:
    """Negatives weigh by the class of their entropy; see ``entropy_weights``.

    Attributes:
      low: bits; negatives of lower entropy are easy.
      high: bits; negatives of this entropy or more are hard.
      class_weights: of easy, ambiguous and hard negatives.
      confident: the class of a negative that surely outranks the answer.
      reference: what the belief in a negative is of, ``relative`` or ``absolute``.
      many: queries with at least this many known answers in train weigh ``MANY_WEIGHTS``; 0 for no query.
    """

    low: float
    high: float
    class_weights: tuple[float, float, float]
    reference: Callable[[jax.Array, jax.Array], jax.Array] = relative
    confident: Callable[[Classes, jax.Array], Classes] = by_entropy
    many: int = 0

    def __call__(self, scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
        """Weights of the negatives."""
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
    """A control for ``EntropyGuided``: gradients as long as by it, but every negative of a row weighs the same.

    Attributes:
      guided: by which the length goes.
    """

    guided: EntropyGuided

    def __call__(self, scores, positive, negative, answers, across: Across = LOCAL) -> Weights:
        """Weights of the negatives."""
        weights: Any = self.guided(scores, positive, negative, answers, across).values
        return Weights(same_pull(weights, scores, negative, across))
