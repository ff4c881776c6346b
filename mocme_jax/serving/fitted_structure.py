"""The structure of new entities with a few triples, fitted to these triples with everything else fixed.

The fit approximates the row that training would reach if only this row could move. Its loss is the softmax loss of the
fused scores of both queries of each triple among all entities, plus the penalty of every expert, as in training. The
optimizer is the structure table's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.method.encoder import Carried
from mocme_jax.method.mocme import MoCME
from mocme_jax.method.regularisers import REGULARISERS
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.compiled_queries import Tables
from mocme_jax.serving.completion import BATCHES, Served, filled
from mocme_jax.serving.known_facts import Facts
from mocme_jax.serving.top_candidates import Pairs, cleared, pairs_of

STEPS = 30

_MOST = BATCHES[-1]
# The score of an entity that is not a candidate. An infinite score would have no gradient.
_NO_SCORE = -1e30


class Fitting(NamedTuple):
    """The training settings of the structure table.

    Attributes:
      learning_rate: Adagrad's learning rate for the table.
      regulariser: the name of the penalty.
      regularisation: the weight of the penalty.
    """

    learning_rate: float
    regulariser: str
    regularisation: float


def given_answers(triples: np.ndarray, old: int, relations: int) -> np.ndarray:
    """Return known answers of queries about new entities, sorted by entity.

    Triples between two new entities are left out, because the structure of the other end is not known yet.

    Args:
      triples: int ``[T, 3]``.
      old: the number of existing entities, which is the id of the first new one.
      relations: the number of relations R.

    Returns:
      int32 ``[Q, 3]``: the position of the query's entity among the new ones, the relation in [0, 2R), and the answer,
      an existing entity.
    """
    asked = reciprocal(np.unique(triples, axis=0), relations)
    asked = asked[(asked[:, 0] >= old) & (asked[:, 2] < old)]
    asked = asked[np.argsort(asked[:, 0], kind="stable")].astype(np.int32)
    return asked - np.array([old, 0, 0], np.int32)


def fit_structure(served: Served, fresh: Carried, facts: Facts, given: np.ndarray, fitting: Fitting) -> Carried:
    """Fit the structure of new entities to their triples. Entities without triples do not change.

    Args:
      served: the model without the new entities.
      fresh: the encoder's inputs for the n new entities. A missing structure starts from zeros.
      facts: known triples, including those of the new entities.
      given: from ``given_answers``. At most 256 per entity are used.
    """
    relations = served.model.num_relations
    structure, present = np.array(fresh.structure), np.array(fresh.present)
    present[given[:, 0], 0] = True
    for own in _groups(given[:, 0]):
        part = given[own]
        size = next(size for size in BATCHES if size >= len(own))
        entities, place = np.unique(part[:, 0], return_inverse=True)
        rows = filled(np.stack([place, part[:, 1], part[:, 2]], axis=1).astype(np.int32), size)
        place, relation, answer = rows.T
        real = np.arange(size) < len(own)
        back = (relation + relations) % (2 * relations)
        ids = (served.facts.num_entities + entities[place]).astype(np.int32)
        # The weight of the other entities as answers to the reverse queries, which the fit does not change.
        asked = np.stack([answer, back, answer], axis=1)
        known = pairs_of(*facts.no_candidates(asked), size)
        _, totals = programs.weigh_questions(*served.scorer, asked, known, jnp.ones(1))
        chosen = filled(entities, size)
        features = tuple(x[chosen] for x in fresh.features)
        carried = Carried(structure[chosen], features, present[chosen], fresh.evidence[chosen])
        fitted = fit_rows(
            *served.scorer,
            jax.tree.map(jnp.asarray, carried),
            rows,
            real,
            pairs_of(*facts.no_candidates(np.stack([ids, relation], axis=1)), size),
            totals[0],
            served.facts.additions.of_facts(ids, relation, answer),
            fitting=fitting,
        )
        structure[entities] = np.asarray(fitted)[: len(entities)]
    return fresh._replace(structure=jnp.asarray(structure), present=jnp.asarray(present))


def _groups(places: np.ndarray) -> Iterator[np.ndarray]:
    """Yield positions of sorted ``places``, grouped by entity, with as many entities as fit into a batch."""
    group = []
    for own in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places)) + 1):
        own = own[:_MOST].tolist()
        if len(group) + len(own) > _MOST:
            yield np.array(group)
            group = []
        group += own
    if group:
        yield np.array(group)


@programs.compiled("model", "fitting")
def fit_rows(
    model: MoCME,
    variables: Any,
    tables: Tables,
    carried: Carried,
    given: jax.Array,
    real: jax.Array,
    known: Pairs,
    totals: jax.Array,
    added: jax.Array,
    *,
    fitting: Fitting,
) -> jax.Array:
    """Return the structure ``[n, H d]`` of new entities after ``STEPS`` steps of Adagrad.

    Args:
      variables: the module's variables.
      tables: the existing entities, encoded.
      carried: the encoder's inputs for the n new entities.
      given: int32 ``[Q, 3]``, known answers as from ``given_answers``, with positions among the n.
      real: bool ``[Q]``, False for padding.
      known: the entities that do not compete with the known answer, including the answer itself.
      totals: ``[Q]``, the log of the sum of exp(score) over the competitors of the new entity in the reverse query.
      added: ``[Q]``, additions to the scores of the known answers.
    """
    regulariser = REGULARISERS[fitting.regulariser]
    place, relation, answer = given.T
    back = (relation + model.num_relations) % (2 * model.num_relations)
    match = programs.match_of(model, tables, relation)
    others = tuple(programs.rows_of(table, answer) for table in (tables.questions, tables.answers))
    asked_back = model.apply(variables, others[0], back, method="query")
    size = tables.answers.shape[1]

    @jax.checkpoint
    def add_block(total, numbered):
        q, number, block = numbered
        scores = jnp.where((number * size + jnp.arange(size) < tables.count)[None], match(q, block), -jnp.inf)
        scores = cleared(scores, known, number * size)
        return jnp.logaddexp(total, jax.nn.logsumexp(jnp.maximum(scores, _NO_SCORE), axis=1))

    def rivals(q: jax.Array) -> jax.Array:
        """Return the log of the sum of exp(score) over all other candidates, ``[Q]``."""
        numbered = jnp.arange(len(tables.answers), dtype=jnp.int32), tables.candidates
        start = jnp.full(len(q), _NO_SCORE)
        return jax.lax.scan(lambda total, one: (add_block(total, (q, *one)), None), start, numbered)[0]

    def loss(structure: jax.Array) -> jax.Array:
        encoding = model.apply(variables, carried._replace(structure=structure), method="encode")
        vectors = model.apply(variables, encoding, method="entity_vectors")
        q = model.apply(variables, vectors.questions[place], relation, method="query")
        about = model.pair(q, others[1]) + added
        answering = model.pair(asked_back, vectors.answers[place])
        losses = jnp.logaddexp(rivals(q), about) - about + jnp.logaddexp(totals, answering) - answering
        own = encoding.vectors[place]
        penalties = jnp.sum(regulariser.penalty(model.score.moduli(own)), axis=1)
        if regulariser.of_queries:
            query, _ = model.apply(variables, own, relation, method="expert_queries")
            penalties = penalties + jnp.sum(regulariser.penalty(model.score.moduli(query)), axis=1)
        return jnp.sum(jnp.where(real, losses + fitting.regularisation * penalties, 0))

    optimizer = optax.adagrad(fitting.learning_rate, initial_accumulator_value=0.0, eps=1e-20)

    def step(carry, _):
        structure, state = carry
        updates, state = optimizer.update(jax.grad(loss)(structure), state)
        return (optax.apply_updates(structure, updates), state), None

    start = carried.structure, optimizer.init(carried.structure)
    return jax.lax.scan(step, start, None, length=STEPS)[0][0]
