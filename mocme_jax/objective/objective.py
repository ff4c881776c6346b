"""The training objective of one device's share of a batch."""

from __future__ import annotations

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
from mocme_jax.objective.roles import make_roles
from mocme_jax.objective.shares import AXIS, dropout, share

WEIGHTINGS = ("entropy", "uniform", "self_adversarial")


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
    query_dropout: float
    redundancy: float
    structure_dropout: float
    feature_dropout: float


def make_loss(model: MoCME, objective: Objective, devices: int) -> Callable:
    """The loss of one device's share, to be called under a mapped axis named ``devices``.

    Every random draw is made for the whole batch on every device and then shared out, and encodings are split over
    the devices and gathered, so that the mean over devices does not depend on how many there are.

    Returns:
      ``loss(params, inputs, known, batch, key) -> (loss, metrics)`` for a share of B / devices triples: each
      device's own mean loss, to be averaged over the devices.
    """
    score = SCORES[model.score]
    encode = make_roles(
        model,
        structure_dropout=objective.structure_dropout,
        feature_dropout=objective.feature_dropout,
        devices=devices,
    )

    def loss(params, inputs: Inputs, known: KnownIndex, batch: Batch, key: jax.Array):
        pool_key, drop_key, encode_key = jax.random.split(key, 3)
        heads, relations, tails = batch.triples.T
        pool = sample_pool(pool_key, model.encoder.entities, objective.pool)
        roles = encode(params, inputs, heads, tails, pool, encode_key)
        relation = share(relations, devices)
        forward, row = model.apply(params, roles.asked_heads, relation, method="query")
        backward, reciprocal = model.apply(params, roles.asked_tails, relation + model.num_relations, method="query")
        queries, answers = jnp.concatenate([forward, backward]), jnp.concatenate([roles.tails, roles.heads])
        if objective.query_dropout:
            rows = share(jnp.arange(2 * len(heads)).reshape(2, -1).T, devices).T.reshape(-1)
            queries = dropout(drop_key, rows, queries, objective.query_dropout)
        groups = share(batch.groups, devices).T.reshape(-1)
        first = 0 if objective.batch_candidates else 2 * len(heads)
        columns = jnp.concatenate([heads, tails, pool])[first:]
        negative = ~known_columns(known, groups, columns)
        if objective.batch_candidates:
            negative = negative & first_occurrence(columns)[None, :]
        positive = score.pair(queries, answers)
        scores = score.match(queries, roles.entities[first:])
        weights, negatives = _weights(objective, scores, positive, negative)
        if objective.loss == "softmax":
            ranking = jnp.mean(softmax_loss(positive, scores, negative, weights))
        else:
            ranking = jnp.mean(logistic_loss(positive, scores, negative, weights, objective.margin))
        fit, redundancy = roles.encoding.fit, roles.encoding.redundancy
        total = ranking + fit
        metrics = {"loss/ranking": ranking, "loss/fit": fit, "redundancy": redundancy, **negatives}
        if objective.regularisation:
            penalty = REGULARISERS[objective.regulariser]
            entity = sum(jnp.mean(penalty(score.moduli(end))) for end in (roles.heads, roles.tails))
            used = 0.5 * (_relation_penalty(model, penalty, row) + _relation_penalty(model, penalty, reciprocal))
            metrics["loss/regularisation"] = objective.regularisation * (entity + used)
            total = total + metrics["loss/regularisation"]
        if objective.redundancy:
            total = total + objective.redundancy * redundancy
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
