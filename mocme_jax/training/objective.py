"""The training objective of one device's share of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.method import egns
from mocme_jax.method.across import Across
from mocme_jax.method.encoder import Carried
from mocme_jax.method.losses import Loss
from mocme_jax.method.mocme import MoCME
from mocme_jax.method.regularisers import Regulariser
from mocme_jax.parallel.candidates import Columns, choose_columns, pool_covers
from mocme_jax.parallel.device_axis import across_devices, gathered, share
from mocme_jax.parallel.entity_tables import Inputs, look_up, look_up_everywhere
from mocme_jax.parallel.known_answers import KnownAnswers, count_known, known_columns
from mocme_jax.training.batch_encoding import Fetched, dropout, encode_roles

# What each precision means for a product of float32 matrices, in JAX's words; not every device knows all three.
PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


class Negatives(NamedTuple):
    """What train knows of a step's 2B queries.

    Attributes:
      mask: bool ``[2B, n]``, which of this device's columns are negatives of each.
      answers: int32 ``[2B]``, how many known answers each has; the same on every device.
    """

    mask: jax.Array
    answers: jax.Array


class StepLoss(NamedTuple):
    """A step's loss in four parts, so that gradients can be taken of the rows that were fetched.

    ``batch`` is int32 ``[B, 3]``, the whole batch's triples, on every device.

    Attributes:
      guided: whether the pool is drawn by entropy, which the state then remembers.
      columns: ``(batch, key, entropy) -> Columns``, the candidates; ``entropy`` is ``[N]`` where guided, else None.
      negatives: ``(known, columns, batch) -> Negatives``.
      fetch: ``(structure, inputs, columns, batch) -> Fetched``, what the tables hold of the columns.
      loss: ``(params, fetched, columns, negatives, batch, key) -> (loss, (metrics, seen))``: this device's own mean
        loss over its B / D triples, to be averaged over the devices; ``params`` are the module's variables, ``seen`` is
        a ``Seen`` where guided, else None.
      metrics: names of the metrics.
    """

    guided: bool
    columns: Callable
    negatives: Callable
    fetch: Callable
    loss: Callable
    metrics: tuple[str, ...]


class Objective(NamedTuple):
    """Choices of the objective; what is not told here is as in the configuration.

    Attributes:
      guided: whether the pool is drawn by entropy.
      reference: what the belief behind that entropy is of, ``egns.relative`` or ``egns.absolute``.
      loss: over positives and weighted negatives.
      precision: a word of ``PRODUCTS``.
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
    structure_dropout: float
    feature_dropout: float
    precision: str


def make_loss(model: MoCME, objective: Objective, *, entities: int, devices: int, split: bool) -> StepLoss:
    """The loss of one device's share, to be called under the named axis of ``parallel``.

    Every random draw belongs to a place in the whole batch or in the whole list of candidates. Queries are gathered,
    and every device scores all of them against its own candidates. So the mean over devices of their losses does not
    depend on how many there are.

    The batch divides by the ``devices``; ``split`` says whether tables with a row an entity are split over them.
    """
    score, across = model.score, across_devices(devices)
    everything = pool_covers(objective.pool, entities)
    guided = objective.guided and not everything

    def candidates(batch: jax.Array) -> slice:
        """Which of this device's columns are scored."""
        own_entities = 2 * (len(batch) // devices)
        return slice(own_entities if everything or not objective.batch_candidates else 0, None)

    def columns_of(batch: jax.Array, key: jax.Array, entropy: jax.Array | None) -> Columns:
        sizes = dict(entities=entities, pool=objective.pool, devices=devices)
        return choose_columns(jax.random.fold_in(key, 0), batch, entropy, **sizes, in_batch=objective.batch_candidates)

    def negatives_of(known: KnownAnswers, columns: Columns, batch: jax.Array) -> Negatives:
        head, relation, tail = batch.T
        ends = (head, tail), (relation, relation + model.num_relations)
        # In the order in which devices hand their queries over: one's own heads, then one's own tails.
        entities, relations = (jnp.stack(two).reshape(2, devices, -1).swapaxes(0, 1).reshape(-1) for two in ends)
        scored, ids = columns.scored[candidates(batch)], columns.ids[columns.places[candidates(batch)]]
        marks = known_columns(known, entities, relations, ids, scored, split=split, everything=everything)
        return Negatives(~marks & scored, count_known(known, entities, relations, split=split))

    def fetch(structure, inputs: Inputs, columns: Columns, batch: jax.Array) -> Fetched:
        ids = columns.ids[columns.places]
        if everything and split:
            # The pool's rows are this device's own, and are taken where they lie.
            asked = look_up(structure, inputs, ids[: 2 * (len(batch) // devices)], split=True)
            own = Carried(structure, inputs.features, inputs.present)
            carried = jax.tree.map(lambda *parts: jnp.concatenate(parts), asked, own)
        else:
            carried = look_up(structure, inputs, ids, split=split)
        return Fetched(carried, look_up_everywhere(structure, inputs, inputs.panel, split=split, devices=devices))

    def loss(params, fetched: Fetched, columns: Columns, negatives: Negatives, batch: jax.Array, key):
        # The precision of a product is its gradient's too.
        with jax.default_matmul_precision(PRODUCTS[objective.precision]):
            if objective.precision == "bfloat16":
                params, fetched = _cast((params, fetched), jnp.bfloat16)
            return in_precision(params, fetched, columns, negatives, batch, key)

    def in_precision(params, fetched: Fetched, columns: Columns, negatives: Negatives, batch: jax.Array, key):
        relations = batch[:, 1]
        size = len(relations) // devices
        roles = encode_roles(
            model,
            params,
            fetched,
            columns,
            jax.random.fold_in(key, 1),
            batch=size,
            structure_dropout=objective.structure_dropout,
            feature_dropout=objective.feature_dropout,
        )
        relation = share(relations, devices)
        forward, row = model.apply(params, roles.asked_heads, relation, method="query")
        backward, reciprocal = model.apply(params, roles.asked_tails, relation + model.num_relations, method="query")
        queries, answers = jnp.concatenate([forward, backward]), jnp.concatenate([roles.tails, roles.heads])
        if objective.query_dropout:
            rows = share(jnp.arange(2 * len(relations)).reshape(2, -1).T, devices).T.reshape(-1)
            queries = dropout(jax.random.fold_in(key, 2), rows, queries, objective.query_dropout)
        positive = score.pair(queries, answers).astype(jnp.float32)
        scores = score.match(gathered(queries), roles.columns[candidates(batch)]).astype(jnp.float32)
        seen = None
        if guided:
            logits = objective.reference(scores, gathered(positive))
            mean, count = egns.mean_entropy(logits, negatives.mask)
            seen = egns.Seen(columns.ids[columns.places[candidates(batch)]], mean, count > 0)
        weights = objective.weighting(scores, gathered(positive), negatives.mask, negatives.answers, across)
        shares = _shares(weights, across)
        ranking = jnp.mean(objective.loss(positive, scores, negatives.mask, weights.values, across))
        fit, redundancy = _cast((roles.encoding.fit, roles.encoding.redundancy), jnp.float32)
        total = ranking + fit
        metrics = {"loss/ranking": ranking, "loss/fit": fit, "redundancy": redundancy, **shares}
        if objective.regularisation:
            both: Any = row, reciprocal
            ends = roles.heads, roles.tails
            penalty = _penalty(model, params, objective.regulariser, ends, relation, both)
            metrics["loss/regularisation"] = objective.regularisation * penalty
            total = total + metrics["loss/regularisation"]
        metrics["loss/total"] = total
        return total, (metrics, seen)

    return StepLoss(guided, columns_of, negatives_of, fetch, loss, _metrics(objective))


def _metrics(objective: Objective) -> tuple[str, ...]:
    names = ["loss/ranking", "loss/fit", "redundancy", "loss/total"]
    if objective.regularisation:
        names.append("loss/regularisation")
    if isinstance(objective.weighting, egns.EntropyGuided):
        names += [f"negatives/{kind}_{name}" for kind in ("share", "weight") for name in egns.CLASSES]
    return tuple(names)


def _cast(tree, kind):
    """The tree with its floats in another type."""
    return jax.tree.map(lambda x: x.astype(kind) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _penalty(
    model: MoCME,
    params,
    regulariser: Regulariser,
    ends: Sequence[jax.Array],
    relation: jax.Array,
    rows: Sequence[jax.Array],
) -> jax.Array:
    """Mean penalty of triples, float32 scalar.

    Args:
      ends: heads and tails as answers, ``[B, d]`` each: where features are for questions alone, it is the structure
        that is penalised.
      rows: of the relations and of their reciprocals, ``[B, d_r]`` each.
    """
    moduli = model.score.moduli

    def mean(factors: jax.Array) -> jax.Array:
        return jnp.mean(regulariser.penalty(moduli(factors.astype(jnp.float32))))

    entities = mean(ends[0]) + mean(ends[1])
    if regulariser.of_queries:
        forward, _ = model.apply(params, ends[0], relation, method="query")
        backward, _ = model.apply(params, ends[1], relation + model.num_relations, method="query")
        return entities + (mean(forward) + mean(backward))
    if model.score.phases:
        # Phases have modulus 1 whatever they are.
        return entities
    return entities + 0.5 * (mean(rows[0]) + mean(rows[1]))


def _shares(weights: egns.Weights, across: Across) -> dict[str, jax.Array]:
    """Metrics: each class's share of the negatives, and of their weight, over the whole batch."""
    metrics: dict[str, jax.Array] = {}
    if weights.counts is None or weights.totals is None:
        return metrics
    for kind, amounts in (("share", weights.counts), ("weight", weights.totals)):
        # Devices hold unlike numbers of negatives, so the mean of their shares would be another.
        amounts = across.sum(amounts)
        shares = amounts / jnp.maximum(jnp.sum(amounts), 1)
        metrics |= {f"negatives/{kind}_{name}": shares[i] for i, name in enumerate(egns.CLASSES)}
    return metrics
