"""The training objective of one device's share of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.method import egns
from mocme_jax.method.across import Across
from mocme_jax.method.encoder import Carried
from mocme_jax.method.losses import Loss
from mocme_jax.method.mocme import MoCME
from mocme_jax.method.regularisers import Regulariser
from mocme_jax.method.scoring import Score
from mocme_jax.parallel.candidates import Columns, choose_columns, pool_covers
from mocme_jax.parallel.device_axis import across_devices, gathered, share
from mocme_jax.parallel.entity_tables import Inputs, look_up
from mocme_jax.parallel.known_answers import KnownAnswers, count_known, known_columns
from mocme_jax.training.fused_scores import by_expert, fit_loss, fused, queries_of

# JAX's names of the precisions of float32 matrix products. Not every device supports all three.
PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


class Negatives(NamedTuple):
    """Known answers in train of the queries of a step: B triples in both directions.

    Attributes:
      mask: bool ``[2B, n]``, whether each of this device's columns is a negative of the query.
      answers: int32 ``[2B]``, the number of known answers of each query; the same on every device.
    """

    mask: jax.Array
    answers: jax.Array


class StepLoss(NamedTuple):
    """The loss of a step in four parts, so that gradients of the rows that were looked up can be taken.

    ``batch`` is int32 ``[B, 3]``: the triples of the whole batch, on every device.

    Attributes:
      guided: whether the pool is drawn by entropy, which is then kept in the state.
      columns: ``(batch, key, entropy) -> Columns``, the candidates. ``entropy`` is ``[N]`` if guided, else None.
      negatives: ``(known, columns, batch) -> Negatives``, for the known answers in train.
      fetch: ``(structure, inputs, columns, batch) -> Carried``, the encoder's inputs for the columns.
      loss: ``(params, carried, columns, negatives, batch, key) -> (loss, (metrics, seen))``. The loss is this device's
        mean over its B / D triples, to be averaged over the devices. ``params`` are the module's variables. ``seen`` is
        a ``Seen`` if guided, else None.
      metrics: the names of the metrics.
    """

    guided: bool
    columns: Callable
    negatives: Callable
    fetch: Callable
    loss: Callable
    metrics: tuple[str, ...]


class Objective(NamedTuple):
    """The parts of the objective. Fields that are not listed are those of the config.

    Attributes:
      guided: whether the pool is drawn by entropy.
      reference: the belief whose entropy guides the pool, ``egns.relative`` or ``egns.absolute``.
      weighting: the weighting of negatives.
      loss: the loss of positives and weighted negatives.
      regulariser: the penalty.
      precision: a key of ``PRODUCTS``.
    """

    pool: int
    batch_candidates: bool
    guided: bool
    reference: Callable[[jax.Array, jax.Array], jax.Array]
    weighting: egns.Weighting
    loss: Loss
    regulariser: Regulariser
    regularisation: float
    query_dropout: float
    precision: str


def make_loss(model: MoCME, objective: Objective, *, entities: int, devices: int, split: bool) -> StepLoss:
    """Make the loss of one device's share, to be called under the named axis of ``parallel``.

    Every random draw belongs to a position in the whole batch or in the whole list of candidates. Queries are
    all-gathered, and every device scores all of them against its own candidates. So the mean of the loss over devices
    does not depend on their number.

    Args:
      model: the model.
      objective: the parts of the objective.
      entities: the number of entities N.
      devices: the number of devices, which must divide the batch size.
      split: whether tables with one row per entity are sharded.
    """
    score, across = model.score, across_devices(devices)
    everything = pool_covers(objective.pool, entities)
    guided = objective.guided and not everything

    fits = model.fusion.fitted_on == "train"

    def candidates(batch: jax.Array) -> slice:
        """Return the slice of this device's columns that are scored."""
        own_entities = 2 * (len(batch) // devices)
        return slice(own_entities if everything or not objective.batch_candidates else 0, None)

    def columns_of(batch: jax.Array, key: jax.Array, entropy: jax.Array | None) -> Columns:
        sizes = dict(entities=entities, pool=objective.pool, devices=devices)
        return choose_columns(jax.random.fold_in(key, 0), batch, entropy, **sizes, in_batch=objective.batch_candidates)

    def negatives_of(known: KnownAnswers, columns: Columns, batch: jax.Array) -> Negatives:
        head, relation, tail = batch.T
        ends = (head, tail), (relation, relation + model.num_relations)
        # In the order in which devices gather queries: for each device, its heads, then its tails.
        queries, relations = [jnp.stack(two).reshape(2, devices, -1).swapaxes(0, 1).reshape(-1) for two in ends]
        scored, ids = columns.scored[candidates(batch)], columns.ids[columns.places[candidates(batch)]]
        marks = known_columns(known, queries, relations, ids, scored, split=split, everything=everything)
        return Negatives(~marks & scored, count_known(known, queries, relations, split=split))

    def fetch(structure, inputs: Inputs, columns: Columns, batch: jax.Array) -> Carried:
        ids = columns.ids[columns.places]
        if not (everything and split):
            return look_up(structure, inputs, ids, split=split)
        # The pool's rows are this device's own, so they need no lookup.
        asked = look_up(structure, inputs, ids[: 2 * (len(batch) // devices)], split=True)
        own = Carried(structure, inputs.features, inputs.present, inputs.evidence)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), asked, own)

    def loss(params, carried: Carried, columns: Columns, negatives: Negatives, batch: jax.Array, key):
        # The gradient of a product has the same precision.
        with jax.default_matmul_precision(PRODUCTS[objective.precision]):
            if objective.precision == "bfloat16":
                params, carried = _cast((params, carried), jnp.bfloat16)
            return in_precision(params, carried, columns, negatives, batch, key)

    def in_precision(params, carried: Carried, columns: Columns, negatives: Negatives, batch: jax.Array, key):
        size = len(batch) // devices
        encoding: Any = model.apply(params, carried, method="encode")
        pool = jax.tree.map(lambda x: x[candidates(batch)], encoding)

        queries = queries_of(encoding, share(batch[:, 1], devices), model)
        told: Any = model.apply(params, queries.entities.vectors, queries.relations, method="expert_queries")
        clean, rows = told
        asked = clean
        if objective.query_dropout:
            order = jnp.arange(2 * len(batch)).reshape(2, -1).T
            asked = dropout(
                jax.random.fold_in(key, 1), share(order, devices).T.reshape(-1), clean, objective.query_dropout
            )
        positive = by_expert(score.pair, asked, queries.answers.vectors)
        scores = by_expert(score.match, gathered(asked), pool.vectors)

        def rank(positive, scores):
            """Return the mean loss of one expert, and the distribution of its weights."""
            weights = objective.weighting(scores, gathered(positive), negatives.mask, negatives.answers, across)
            losses = objective.loss(positive, scores, negatives.mask, weights.values, across)
            return jnp.mean(losses), _shares(weights, across)

        rankings, shares = jax.vmap(rank)(positive, scores)
        metrics = {"loss/ranking": jnp.sum(rankings)} | jax.tree.map(jnp.mean, shares)
        total = metrics["loss/ranking"]
        seen = None
        if guided:
            if model.fusion.fitted_on == "dev":
                # Equal weights: training must not depend on dev, nor on when it was last evaluated.
                own, everyone = jnp.sum(positive, axis=0), jnp.sum(scores, axis=0)
            else:
                own, everyone = fused(model, params, queries, pool, positive, scores, across)
            mean, count = egns.mean_entropy(objective.reference(everyone, gathered(own)), negatives.mask)
            seen = egns.Seen(columns.ids[columns.places[candidates(batch)]], mean, count > 0)
        if fits:
            fit, metrics["information"] = fit_loss(model, params, queries, pool, negatives.mask, across)
            total = total + fit
        if objective.regularisation:
            penalty = _penalty(score, objective.regulariser, encoding.vectors[: 2 * size], clean, rows)
            metrics["loss/regularisation"] = objective.regularisation * penalty
            total = total + metrics["loss/regularisation"]
        metrics["loss/total"] = total
        return total, (metrics, seen)

    return StepLoss(guided, columns_of, negatives_of, fetch, loss, _metrics(objective, fits))


def _metrics(objective: Objective, fits: bool) -> tuple[str, ...]:
    names = ["loss/ranking", "loss/total"]
    if fits:
        names.append("information")
    if objective.regularisation:
        names.append("loss/regularisation")
    if isinstance(objective.weighting, egns.EntropyGuided):
        names += [f"negatives/{kind}_{name}" for kind in ("share", "weight") for name in egns.CLASSES]
    return tuple(names)


def _cast(tree, kind):
    """Convert the floats of a tree to another type."""
    return jax.tree.map(lambda x: x.astype(kind) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _penalty(score: Score, regulariser: Regulariser, ends: jax.Array, queries: jax.Array, rows: jax.Array) -> jax.Array:
    """Compute the mean penalty of triples, summed over experts, as a float32 scalar.

    Args:
      score: the score function.
      regulariser: the penalty.
      ends: ``[2B', H, d]``, heads and tails.
      queries: ``[2B', H, d]``, query vectors of both directions.
      rows: ``[2B', H, d_r]``, rows of the relations and of their reciprocals.
    """

    def mean(factors: jax.Array) -> jax.Array:
        return jnp.sum(jnp.mean(regulariser.penalty(score.moduli(factors.astype(jnp.float32))), axis=0))

    if regulariser.of_queries:
        return 2 * (mean(ends) + mean(queries))
    # Phases always have modulus 1.
    return 2 * mean(ends) + (0 if score.phases else mean(rows))


def dropout(key: jax.Array, rows: jax.Array, array: jax.Array, chance: float) -> jax.Array:
    """Apply dropout to ``[n, ...]``: hide components at random and scale up the rest (Srivastava et al., JMLR 2014).

    Each row has its own key, by its position in the whole batch, so draws do not depend on the number of devices.

    Args:
      key: PRNG key.
      rows: int ``[n]``, positions in the whole batch.
      array: ``[n, ...]``.
      chance: the probability of hiding a component.
    """
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
    kept = jax.vmap(lambda one: jax.random.bernoulli(one, 1 - chance, array.shape[1:]))(keys)
    return jnp.where(kept, array / (1 - chance), 0)


def _shares(weights: egns.Weights, across: Across) -> dict[str, jax.Array]:
    """Return metrics: each class's share of the negatives and of their weight, over the whole batch."""
    metrics: dict[str, jax.Array] = {}
    if weights.counts is None or weights.totals is None:
        return metrics
    for kind, amounts in (("share", weights.counts), ("weight", weights.totals)):
        # Devices hold different numbers of negatives, so totals are summed before the division.
        amounts = across.sum(amounts)
        shares = amounts / jnp.maximum(jnp.sum(amounts), 1)
        metrics |= {f"negatives/{kind}_{name}": shares[i] for i, name in enumerate(egns.CLASSES)}
    return metrics
