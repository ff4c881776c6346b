"""Fused scores of a step's queries, and the loss of a fit of the fusion's weights on train."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.method.across import Across
from mocme_jax.method.complementarity import only_fusion
from mocme_jax.method.encoder import Encoding
from mocme_jax.method.losses import softmax_loss
from mocme_jax.method.mocme import MoCME
from mocme_jax.method.mutual_information import infonce_bound


class Queries(NamedTuple):
    """A device's triples as Q queries in both directions: first all tail queries, then all head queries.

    Attributes:
      entities: the known entities of the queries.
      relations: int32 ``[Q]`` in [0, 2R).
      answers: the answers.
    """

    entities: Encoding
    relations: jax.Array
    answers: Encoding


def queries_of(encoding: Encoding, relations: jax.Array, model: MoCME) -> Queries:
    """Make the queries of n triples.

    Args:
      encoding: encoded entities, first the n heads, then the n tails, then any others.
      relations: int32 ``[n]``.
      model: the model.
    """
    count = len(relations)

    def ends(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        heads, tails = x[:count], x[count : 2 * count]
        return jnp.concatenate([heads, tails]), jnp.concatenate([tails, heads])

    pairs = [ends(x) for x in encoding]
    both = jnp.concatenate([relations, relations + model.num_relations])
    return Queries(Encoding(*(pair[0] for pair in pairs)), both, Encoding(*(pair[1] for pair in pairs)))


def by_expert(function: Callable, queries: jax.Array, answers: jax.Array) -> jax.Array:
    """Compute each expert's scores, ``[H, ...]`` float32, of its queries ``[Q, H, d]`` and answers ``[C, H, d]``."""
    return jax.vmap(function, in_axes=1)(queries, answers).astype(jnp.float32)


def scores_of(
    model: MoCME, params: Any, queries: Queries, pool: Encoding, across: Across
) -> tuple[jax.Array, jax.Array]:
    """Compute each expert's scores of the answers, ``[H, Q]``, and of the candidates, ``[H, A, C]``; see ``fused``."""
    asked, _ = model.apply(params, queries.entities.vectors, queries.relations, method="expert_queries")
    positive = by_expert(model.score.pair, asked, queries.answers.vectors)
    return positive, by_expert(model.score.match, across.everyone(asked), pool.vectors)


def fused(
    model: MoCME,
    params: Any,
    queries: Queries,
    pool: Encoding,
    positive: jax.Array,
    scores: jax.Array,
    across: Across,
) -> tuple[jax.Array, jax.Array]:
    """Fuse the scores of the experts.

    Args:
      model: the model.
      params: the module's variables.
      queries: this device's Q queries, of A on all devices.
      pool: the C candidates.
      positive: ``[H, Q]``, scores of the answers.
      scores: ``[H, A, C]``, scores of the candidates.
      across: has the queries of all devices.

    Returns:
      The fused scores of the answers ``[Q]`` and of the candidates ``[A, C]``.
    """

    def weights(encoding: Encoding, *, answers: bool) -> jax.Array:
        found: Any = model.apply(params, encoding, answers=answers, method="log_weights")
        return found

    of_queries: Any = model.apply(params, queries.entities, queries.relations, method="query_log_weights")
    of_pool, everyone = jnp.exp(weights(pool, answers=True)), jnp.exp(across.everyone(of_queries))
    own = jnp.exp(of_queries + weights(queries.answers, answers=True))
    total: Any = sum(everyone[:, j, None] * of_pool[:, j] * one for j, one in enumerate(scores))
    return jnp.sum(own.T * positive, axis=0), total


def fit_loss(
    model: MoCME, params: Any, queries: Queries, pool: Encoding, negative: jax.Array, across: Across
) -> tuple[jax.Array, jax.Array]:
    """Compute the loss of a fit on the training triples, whose gradient is zero for all other parameters.

    Args:
      model: the model.
      params: the module's variables.
      queries: this device's queries.
      pool: the C candidates.
      negative: bool ``[A, C]``, whether the candidate is a negative of the query, for the queries of all devices.
      across: reduces over all columns.

    Returns:
      The loss, and the InfoNCE bound of the fused scores in nats; scalars.
    """
    params = only_fusion(params)
    queries, pool = jax.lax.stop_gradient((queries, pool))
    positive, scores = fused(model, params, queries, pool, *scores_of(model, params, queries, pool, across), across)
    losses = softmax_loss(positive, scores, negative, None, across)
    count = across.own_sum(jnp.sum(negative, axis=1).astype(jnp.float32))
    return jnp.mean(losses), jnp.mean(infonce_bound(losses, count))
