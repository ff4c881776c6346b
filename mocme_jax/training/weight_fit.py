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

from mocme_jax.additions.addition import TableAddition
from mocme_jax.evaluation.dev_folds import dev_folds
from mocme_jax.method.across import LOCAL
from mocme_jax.method.losses import softmax_loss
from mocme_jax.method.mocme import MoCME, Params
from mocme_jax.parallel.candidates import sample_pool
from mocme_jax.parallel.entity_tables import Inputs, inputs_spec
from mocme_jax.parallel.known_answers import KnownAnswers, known_columns, known_spec
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.entity_encoding import Unencoded, carried_everywhere
from mocme_jax.training.fused_scores import fused, queries_of, scores_of
from mocme_jax.training.train_state import params_spec

STEPS = 200
"""The number of steps of the fit."""
TRIPLES = 128
"""The number of dev triples per step; each gives two queries."""
POOL = 1024
"""The number of candidates per step; all entities if there are no more."""
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
) -> Fit:
    """Make the fit, a compiled program whose result does not depend on the number of devices.

    It maximises the InfoNCE bound of the fused scores on dev triples: a step draws some of them and a pool of
    candidates. Known answers in train and dev are no negatives. Every device does the whole fit.

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
    """
    everyone = np.ones(len(dev), bool)
    chosen = np.stack([everyone, *(~fold for fold in dev_folds(len(dev)))])
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def program(chosen, dev, additions, params: Params, inputs: Inputs, known: tuple[KnownAnswers, ...]):
        tables = Unencoded(params.structure, inputs, tuple(one.measured(params.structure) for one in additions))
        # Penalties are for all queries together, losses are means over the queries.
        strengths = 1 / jnp.maximum(2 * jnp.sum(chosen, axis=1), 1)

        def with_weights(fusion: Any) -> Any:
            return {**params.model, "params": {**params.model["params"], "fusion": fusion}}

        def step(carry, key: jax.Array):
            weights, state = carry
            row_key, pool_key = jax.random.split(key)
            rows = jax.random.randint(row_key, (TRIPLES,), 0, len(dev), jnp.int32)
            heads, relations, tails = dev[rows].T
            pool = sample_pool(pool_key, entities, POOL)
            ids = jnp.concatenate([heads, tails, pool])
            encoding: Any = model.apply(params.model, carried_everywhere(tables, ids, split), method="encode")
            queries = queries_of(encoding, relations, model)
            candidates = jax.tree.map(lambda x: x[2 * TRIPLES :], encoding)
            asked = jnp.concatenate([heads, tails]), queries.relations
            wanted = jnp.ones(len(pool), bool)
            marks = [known_columns(one, *asked, pool, wanted, split=split, everything=False) for one in known]
            negative = ~(marks[0] | marks[1])
            scores = scores_of(model, params.model, queries, candidates, LOCAL)

            def loss(fusion: Any, chosen: jax.Array, strength: jax.Array) -> jax.Array:
                both = fused(model, with_weights(fusion), queries, candidates, *scores, LOCAL)
                counts = jnp.tile(chosen[rows], 2)
                losses = jnp.where(counts, softmax_loss(*both, negative), 0)
                penalty: Any = model.apply(with_weights(fusion), method="fusion_penalty")
                return jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1) + strength * penalty

            gradients = jax.vmap(jax.grad(loss))(weights, chosen, strengths)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(weights, updates), state), None

        with jax.default_matmul_precision("highest"):
            zeros = jax.tree.map(lambda x: jnp.zeros((len(chosen), *x.shape)), params.model["params"]["fusion"])
            keys = jax.random.split(jax.random.key(0), STEPS)
            (weights, _), _ = jax.lax.scan(step, (zeros, optimizer.init(zeros)), keys)
        return weights

    known_specs = (known_spec(split), known_spec(split))
    mapped = mapper.map(program, (WHOLE, WHOLE, WHOLE, params_spec(split), inputs_spec(split), known_specs), WHOLE)
    given = mapper.place((chosen, np.asarray(dev, np.int32), additions), WHOLE)

    def fit(params: Params) -> Fitted:
        weights = jax.device_get(mapped(*given, params, inputs, (known, known_dev)))

        def of(number: int) -> Params:
            return with_fusion(params, mapper.place(jax.tree.map(lambda x: x[number], weights), WHOLE))

        return Fitted(of(0), tuple(of(number) for number in range(1, len(chosen))))

    return fit


def with_fusion(params: Params, fusion: Any) -> Params:
    """Return the parameters with other parameters of the fusion."""
    return params._replace(model={**params.model, "params": {**params.model["params"], "fusion": fusion}})
