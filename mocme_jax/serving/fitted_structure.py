"""The structure of entities that arrive with a few triples: fitted to these triples, with everything else fixed.

The fit approximates the row that training would reach if only this row could move. Its loss is the softmax loss of the
fused scores of both queries of each triple among all entities, and every expert's penalty, as in training;
the optimizer is the table's own.
"""

from __future__ import annotations

import functools
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
from mocme_jax.serving.top_candidates import Masks, cleared, masks_of

STEPS = 30

_MOST = BATCHES[-1]
# Of what is no candidate; an infinite one would have no gradient.
_NO_SCORE = -1e30


class Fitting(NamedTuple):
    """How rows of the structure table were trained.

    Attributes:
      learning_rate: Adagrad's, of the table.
      regulariser, regularisation: the penalty's name and weight.
    """

    learning_rate: float
    regulariser: str
    regularisation: float


class Given(NamedTuple):
    """Known answers of new entities, int32 ``[Q]`` each.

    Attributes:
      place: of the entity that is asked about, among the new ones.
      relation: in [0, 2R).
      answer: an old entity.
    """

    place: np.ndarray
    relation: np.ndarray
    answer: np.ndarray


def given_answers(triples: np.ndarray, old: int, relations: int) -> Given:
    """What triples ``[T, 3]`` say of entities from id ``old`` on, sorted by these.

    Triples between two new entities, whose other end is unsettled, are left out.
    """
    asked = reciprocal(np.unique(triples, axis=0), relations)
    asked = asked[(asked[:, 0] >= old) & (asked[:, 2] < old)]
    asked = asked[np.argsort(asked[:, 0], kind="stable")].astype(np.int32)
    return Given(asked[:, 0] - old, asked[:, 1], asked[:, 2])


def fit_structure(served: Served, fresh: Carried, facts: Facts, given: Given, fitting: Fitting) -> Carried:
    """New entities with the structure that their triples ask for; without triples they keep what they have.

    Args:
      served: the model without them.
      fresh: what n new entities carry; where a structure is missing, zeros are what it starts from.
      facts: what is known, of the new entities too.
      given: from ``given_answers``; of an entity with more than 256 the first 256 count.
      fitting: as in training.
    """
    model, relations = served.model, served.model.num_relations
    structure, present = np.array(fresh.structure), np.array(fresh.present)
    present[given.place, 0] = True
    for own in _groups(given.place):
        part = Given(*(column[own] for column in given))
        size = next(size for size in BATCHES if size >= len(own))
        entities, place = np.unique(part.place, return_inverse=True)
        rows = Given(*(filled(column, size) for column in (place.astype(np.int32), part.relation, part.answer)))
        real = np.arange(size) < len(own)
        back = (rows.relation + relations) % (2 * relations)
        ids = (served.facts.num_entities + entities[rows.place]).astype(np.int32)
        # What the other entities weigh as answers to the questions that a new one answers: it moves none of them.
        _, totals = programs.weigh_questions(
            model,
            served.params.model,
            served.tables,
            rows.answer,
            back,
            rows.answer,
            masks_of(facts.no_candidates(np.stack([rows.answer, back], axis=1)), None, size),
            jnp.ones(1),
        )
        chosen = filled(entities, size)
        features = tuple(x[chosen] for x in fresh.features)
        carried = Carried(structure[chosen], features, present[chosen], fresh.evidence[chosen])
        fitted = fit_rows(
            model,
            served.params.model,
            served.tables,
            jax.tree.map(jnp.asarray, carried),
            rows,
            real,
            masks_of(facts.no_candidates(np.stack([ids, rows.relation], axis=1)), None, size),
            totals[0],
            served.facts.additions.of_facts(ids, rows.relation, rows.answer),
            fitting=fitting,
        )
        structure[entities] = np.asarray(fitted)[: len(entities)]
    return fresh._replace(structure=jnp.asarray(structure), present=jnp.asarray(present))


def _groups(places: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of sorted places, an entity's together, no more than fit into a batch."""
    group = []
    for own in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places)) + 1):
        own = own[:_MOST].tolist()
        if len(group) + len(own) > _MOST:
            yield np.array(group)
            group = []
        group += own
    if group:
        yield np.array(group)


@functools.partial(jax.jit, static_argnames=("model", "fitting"))
def fit_rows(
    model: MoCME,
    variables: Any,
    tables: Tables,
    carried: Carried,
    given: Given,
    real: jax.Array,
    masks: Masks,
    totals: jax.Array,
    added: jax.Array,
    *,
    fitting: Fitting,
) -> jax.Array:
    """Structure ``[n, H d]`` of entities that carry ``carried``, after ``STEPS`` steps of Adagrad.

    Args:
      given: Q answers, ``place`` among the n.
      real: bool ``[Q]``, the others fill up.
      masks: ``known_*``, what is no rival of an answer given; must hold the answer itself.
      totals: ``[Q]``, log of the sum of exp(score) over the rivals of the entity as an answer to the question back.
      added: ``[Q]``, to the scores of the answers given.
      fitting: as in training.
    """
    regulariser = REGULARISERS[fitting.regulariser]
    place, relation, answer = given
    back = (relation + model.num_relations) % (2 * model.num_relations)
    match = programs.match_of(model, tables, relation)
    others = tuple(programs.rows_of(table, answer) for table in (tables.questions, tables.answers))
    asked_back = programs.question(model, variables, others[0], back)
    size = tables.answers.shape[1]

    @jax.checkpoint
    def add_block(total, numbered):
        q, number, block = numbered
        scores = jnp.where((number * size + jnp.arange(size) < tables.count)[None], match(q, block), -jnp.inf)
        scores = cleared(scores, masks.known_rows, masks.known_ids - number * size)
        return jnp.logaddexp(total, jax.nn.logsumexp(jnp.maximum(scores, _NO_SCORE), axis=1))

    def rivals(q: jax.Array) -> jax.Array:
        """Log of the sum of exp(score) of all other candidates ``[Q]``."""
        numbered = jnp.arange(len(tables.answers), dtype=jnp.int32), tables.candidates
        start = jnp.full(len(q), _NO_SCORE)
        return jax.lax.scan(lambda total, one: (add_block(total, (q, *one)), None), start, numbered)[0]

    def loss(structure: jax.Array) -> jax.Array:
        encoding = model.apply(variables, carried._replace(structure=structure), method="encode")
        vectors = model.apply(variables, encoding, method="entity_vectors")
        q = programs.question(model, variables, vectors.questions[place], relation)
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

    with jax.default_matmul_precision("highest"):
        start = carried.structure, optimizer.init(carried.structure)
        return jax.lax.scan(step, start, None, length=STEPS)[0][0]
