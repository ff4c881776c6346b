"""The training objective of one device's share of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.model.encoder import Inputs
from mocme_jax.model.mocme import MoCME
from mocme_jax.model.scoring import SCORES
from mocme_jax.objective import entropy
from mocme_jax.objective.candidates import KnownIndex, first_occurrence, known_columns, sample_pool
from mocme_jax.objective.loss import logistic_loss, softmax_loss
from mocme_jax.objective.regularisers import REGULARISERS

WEIGHTINGS = ("entropy", "uniform", "self_adversarial")
AXIS = "devices"

# Encoded entities are padded to a multiple of this on one device too, so that means over them are means over the same
# rows on 1, 2, 4 or 8.
_ROWS = 8


class Batch(NamedTuple):
    """The whole batch, on every device: ``triples`` int32 ``[B, 3]`` and their query ``groups`` int32 ``[B, 2]``."""

    triples: jax.Array
    groups: jax.Array


class Objective(NamedTuple):
    """Choices of the objective, each a word or number of the configuration (see there for meanings)."""

    pool: int
    batch_candidates: bool
    weighting: str
    entropy_low: float
    entropy_high: float
    class_weights: tuple[float, float, float]
    reference: str
    confident: str
    adversarial_temperature: float
    loss: str
    margin: float
    regulariser: str
    regularisation: float
    redundancy: float
    structure_dropout: float


def share(array: jax.Array, devices: int) -> jax.Array:
    """This device's rows of an array that every device holds whole; rows divide by the devices."""
    rows = len(array) // devices
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(AXIS) * rows, rows)


def padded_to(array: jax.Array, multiple: int) -> jax.Array:
    """Repeats the first row until the length divides."""
    extra = -len(array) % multiple
    return jnp.concatenate([array, jnp.broadcast_to(array[:1], (extra, *array.shape[1:]))])


def make_loss(model: MoCME, objective: Objective, devices: int) -> Callable:
    """The loss of one device's share, to be called under a mapped axis named ``devices``.

    Every random draw is made for the whole batch on every device and then shared out, and encodings are split over
    the devices and gathered, so that the mean over devices does not depend on how many there are.

    Returns:
      ``loss(params, inputs, known, batch, key) -> (loss, metrics)`` for a share of B / devices triples: each
      device's own mean loss, to be averaged over the devices.
    """
    score = SCORES[model.score]
    entities = model.encoder.entities

    def loss(params, inputs: Inputs, known: KnownIndex, batch: Batch, key: jax.Array):
        pool_key, dropout_key = jax.random.split(key)
        heads, relations, tails = batch.triples.T
        pool = sample_pool(pool_key, entities, objective.pool)
        ids = padded_to(jnp.concatenate([heads, tails, pool]), math.lcm(_ROWS, devices))
        keep = None
        if objective.structure_dropout:
            keep = share(jax.random.uniform(dropout_key, ids.shape) >= objective.structure_dropout, devices)
        panel = model.apply(params, inputs, method="encode_panel")
        encoding = model.apply(params, inputs, share(ids, devices), panel, keep, method="encode")
        vectors = jax.lax.all_gather(encoding.vectors, AXIS, tiled=True)
        size = len(heads)
        head, tail = share(vectors[:size], devices), share(vectors[size : 2 * size], devices)
        relation = share(relations, devices)
        forward, row = model.apply(params, head, relation, method="query")
        backward, reciprocal = model.apply(params, tail, relation + model.num_relations, method="query")
        queries, answers = jnp.concatenate([forward, backward]), jnp.concatenate([tail, head])
        groups = share(batch.groups, devices).T.reshape(-1)
        first = 0 if objective.batch_candidates else 2 * size
        columns = ids[first : 2 * size + len(pool)]
        negative = ~known_columns(known, groups, columns)
        if objective.batch_candidates:
            negative = negative & first_occurrence(columns)[None, :]
        positive = score.pair(queries, answers)
        scores = score.match(queries, vectors[first : 2 * size + len(pool)])
        weights, negatives = _weights(objective, scores, positive, negative)
        if objective.loss == "softmax":
            ranking = jnp.mean(softmax_loss(positive, scores, negative, weights))
        else:
            ranking = jnp.mean(logistic_loss(positive, scores, negative, weights, objective.margin))
        total = ranking + encoding.fit
        metrics = {"loss/ranking": ranking, "loss/fit": encoding.fit, "redundancy": encoding.redundancy, **negatives}
        if objective.regularisation:
            penalty = REGULARISERS[objective.regulariser]
            entity = jnp.mean(penalty(score.moduli(head))) + jnp.mean(penalty(score.moduli(tail)))
            used = 0.5 * (_relation_penalty(model, penalty, row) + _relation_penalty(model, penalty, reciprocal))
            metrics["loss/regularisation"] = objective.regularisation * (entity + used)
            total = total + metrics["loss/regularisation"]
        if objective.redundancy:
            total = total + objective.redundancy * encoding.redundancy
        metrics["loss/total"] = total
        return total, metrics

    return loss


def _relation_penalty(model: MoCME, penalty: Callable, rows: jax.Array) -> jax.Array:
    """Mean penalty of relation rows; RotatE's are phases, which have modulus 1 whatever they are."""
    if model.score == "rotate":
        return jnp.zeros(())
    return jnp.mean(penalty(SCORES[model.score].moduli(rows)))


def _weights(objective: Objective, scores: jax.Array, positive: jax.Array, negative: jax.Array):
    """Weights ``[B, C]`` of the negatives (None for uniform) and the metrics that describe them."""
    if objective.weighting == "uniform":
        return None, {}
    if objective.weighting == "self_adversarial":
        return entropy.self_adversarial_weights(scores, negative, objective.adversarial_temperature), {}
    result = entropy.entropy_weights(
        scores,
        positive,
        negative,
        low=objective.entropy_low,
        high=objective.entropy_high,
        class_weights=objective.class_weights,
        reference=objective.reference,
        confident=objective.confident,
    )
    # Each class's share of the negatives, and of their weight. Of the whole batch: devices hold unlike numbers of
    # negatives, so the mean of their shares would be another.
    metrics = {}
    for kind, amounts in (("share", result.counts), ("weight", result.totals)):
        amounts = jax.lax.psum(amounts, AXIS)
        shares = amounts / jnp.maximum(jnp.sum(amounts), 1)
        metrics |= {f"negatives/{kind}_{name}": shares[i] for i, name in enumerate(("easy", "ambiguous", "hard"))}
    return result.weights, metrics
