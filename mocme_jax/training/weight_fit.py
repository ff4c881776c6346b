"""The fit of the fusion weights on dev triples, from which the experts have learned nothing.

The losses of the experts do not depend on the weights. So the weights are fitted whenever the model is evaluated, from
equal weights, and nothing that happened earlier in the training can lead them astray. They have few parameters: 6 per
expert, and one per expert and query relation. Still, the dev score of weights that were fitted on all of dev would be
too high. So they are also fitted on each of two folds of dev, and each fold is ranked with the weights that were fitted
on the other (cross-fitting).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mocme_jax.additions.addition import ScoreAddition, TableAddition, adjusted
from mocme_jax.evaluation.dev_folds import dev_folds
from mocme_jax.method.across import LOCAL
from mocme_jax.method.encoder import Encoding
from mocme_jax.method.losses import softmax_loss
from mocme_jax.method.mocme import MoCME, Params, init_params
from mocme_jax.parallel.candidates import sample_pool
from mocme_jax.parallel.entity_tables import Inputs, inputs_spec
from mocme_jax.parallel.known_answers import KnownAnswers, known_columns, known_spec
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.entity_encoding import Unencoded, carried_everywhere
from mocme_jax.training.fused_scores import fused, queries_of, scores_of
from mocme_jax.training.train_state import params_spec

STEPS = 400
"""The number of steps of the fit."""
TRIPLES = 64
"""The number of dev triples per step; each gives two queries."""
POOL = 1024
"""The number of candidates per step; all entities if there are no more."""
MOST_TRIPLES = 8192
"""The maximum number of dev triples that a fit uses, and half the maximum number of entities that are candidates."""
RATE = 0.05
"""The step size of Adam at the first step; it falls to 0 along half a cosine."""


class Fitted(NamedTuple):
    """Parameters with fitted weights.

    Attributes:
      params: with the weights that are fitted on all dev triples.
      folds: for each fold of dev, with the weights that are fitted on the other fold; empty if nothing is fitted.
    """

    params: Params
    folds: tuple[Params, ...] = ()


Fit = Callable[[Params], Fitted]


def unfitted(params: Params) -> Fitted:
    """Return the parameters as they are, for a fusion that is not fitted on dev."""
    return Fitted(params)


class _Given(NamedTuple):
    """What a fit reads besides the model; D entities are encoded.

    Attributes:
      chosen: bool ``[3, T]``, which dev triples each of the fits uses.
      triples: int32 ``[T, 3]``, the dev triples, whose entities are positions in ``ids``.
      ids: int32 ``[D]``, the entities; the last one is repeated to fill a block.
      candidates: int32 ``[C]``, positions in ``ids``: the entities from which pools are drawn.
      score_rows: for each score addition, its ``rows`` for the D entities.
      score_wholes: for each score addition, its ``whole``.
    """

    chosen: Any
    triples: Any
    ids: Any
    candidates: Any
    score_rows: Any
    score_wholes: Any


_BLOCK = 1024


def _used(dev: np.ndarray, entities: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of the dev triples that a fit uses, and ``ids``, ``triples`` and ``candidates``."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(dev))[:MOST_TRIPLES])
    heads, relations, tails = dev[rows].T
    everyone = np.arange(entities) if entities <= 2 * MOST_TRIPLES else rng.choice(entities, 2 * MOST_TRIPLES, False)
    ids = np.unique(np.concatenate([heads, tails, everyone]))
    places = np.stack([np.searchsorted(ids, heads), relations, np.searchsorted(ids, tails)], axis=1)
    candidates = np.searchsorted(ids, np.sort(everyone)).astype(np.int32)
    filled = np.pad(ids, (0, -len(ids) % _BLOCK), mode="edge").astype(np.int32)
    return rows, filled, places.astype(np.int32), candidates


def make_weight_fit(
    model: MoCME,
    dev: np.ndarray,
    inputs: Inputs,
    known: KnownAnswers,
    known_dev: KnownAnswers,
    *,
    entities: int,
    mapper: Mapper,
    split: bool = False,
    additions: tuple[TableAddition, ...] = (),
    score_additions: tuple[ScoreAddition, ...] = (),
) -> Fit:
    """Make the fit, a compiled program whose result does not depend on the number of devices.

    It maximises the InfoNCE bound of the fused scores on dev triples: a step draws some of them and a pool of
    candidates. Known answers in train and dev are no negatives. Entities are encoded once, before the steps. Every
    device does the whole fit.

    Args:
      model: the model.
      dev: int ``[T, 3]``, at least one triple.
      inputs: the encoder's inputs, placed.
      known: the known answers in train, placed.
      known_dev: the known answers in dev, placed.
      entities: the number of entities N.
      mapper: the devices.
      split: whether tables are sharded.
      additions: table additions, applied to the structure table; only without sharded tables.
      score_additions: score additions, which count in the scores.
    """
    rows, ids, triples, candidates = _used(np.asarray(dev), entities)
    chosen = np.stack([np.ones(len(dev), bool), *(~fold for fold in dev_folds(len(dev)))])[:, rows]
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    wholes = tuple(one.whole for one in score_additions)
    own_rows = tuple(jax.tree.map(lambda x: x[ids], one.rows) for one in score_additions)

    def program(given: _Given, additions, params: Params, inputs: Inputs, known: tuple[KnownAnswers, ...]):
        tables = Unencoded(params.structure, inputs, tuple(one.measured(params.structure) for one in additions))
        # Penalties are for all queries together, losses are means over the queries.
        strengths = 1 / jnp.maximum(2 * jnp.sum(given.chosen, axis=1), 1)

        def encode(ids: jax.Array) -> Encoding:
            encoding: Any = model.apply(params.model, carried_everywhere(tables, ids, split), method="encode")
            return encoding

        def step(carry, key: jax.Array):
            weights, state = carry
            row_key, pool_key = jax.random.split(key)
            rows = jax.random.randint(row_key, (TRIPLES,), 0, len(given.triples), jnp.int32)
            heads, relations, tails = given.triples[rows].T
            pool = given.candidates[sample_pool(pool_key, len(given.candidates), POOL)]
            taken = jax.tree.map(lambda x: x[jnp.concatenate([heads, tails, pool])], encoding)
            queries = queries_of(taken, relations, model)
            candidates = jax.tree.map(lambda x: x[2 * TRIPLES :], taken)
            asked = given.ids[jnp.concatenate([heads, tails])], queries.relations
            columns = given.ids[pool], jnp.ones(len(pool), bool)
            marks = [known_columns(one, *asked, *columns, split=split, everything=False) for one in known]
            negative = ~(marks[0] | marks[1])
            scores = scores_of(model, params.model, queries, candidates, LOCAL)

            def added(columns: jax.Array) -> jax.Array:
                own = [jax.tree.map(lambda x: x[columns], one) for one in given.score_rows]
                none = jnp.zeros((2 * TRIPLES, len(columns)))
                made = [
                    one._replace(whole=whole) for one, whole in zip(score_additions, given.score_wholes, strict=True)
                ]
                return adjusted(made, own, none, queries.relations)

            bonus = jnp.diagonal(added(jnp.concatenate([tails, heads]))), added(pool)

            def loss(fusion: Any, chosen: jax.Array, strength: jax.Array) -> jax.Array:
                variables = with_fusion(params, fusion).model
                own, others = fused(model, variables, queries, candidates, *scores, LOCAL)
                own, others = own + bonus[0], others + bonus[1]
                counts = jnp.tile(chosen[rows], 2)
                losses = jnp.where(counts, softmax_loss(own, others, negative), 0)
                penalty: Any = model.apply(variables, method="fusion_penalty")
                return jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1) + strength * penalty

            gradients = jax.vmap(jax.grad(loss))(weights, given.chosen, strengths)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(weights, updates), state), None

        with jax.default_matmul_precision("highest"):
            encoding = jax.lax.map(encode, given.ids.reshape(-1, _BLOCK))
            encoding = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), encoding)
            start = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(given.chosen), *x.shape)), _initial(model))
            keys = jax.random.split(jax.random.key(0), STEPS)
            (weights, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys)
        return weights

    known_specs = (known_spec(split), known_spec(split))
    mapped = mapper.map(program, (WHOLE, WHOLE, params_spec(split), inputs_spec(split), known_specs), WHOLE)
    given = mapper.place((_Given(chosen, triples, ids, candidates, own_rows, wholes), additions), WHOLE)

    def fit(params: Params) -> Fitted:
        weights = jax.device_get(mapped(*given, params, inputs, (known, known_dev)))

        def of(number: int) -> Params:
            return with_fusion(params, mapper.place(jax.tree.map(lambda x: x[number], weights), WHOLE))

        return Fitted(of(0), tuple(of(number) for number in range(1, len(chosen))))

    return fit


def before_fit(model: MoCME, params: Params, mapper: Mapper) -> Params:
    """Return the parameters, placed, with the initial weights, from which every fit starts."""
    return with_fusion(params, mapper.place(jax.device_get(_initial(model)), WHOLE))


def _initial(model: MoCME) -> Any:
    return init_params(model, jax.random.key(0), 1).model["params"]["fusion"]


def with_fusion(params: Params, fusion: Any) -> Params:
    """Return the parameters with other parameters of the fusion."""
    return params._replace(model={**params.model, "params": {**params.model["params"], "fusion": fusion}})
