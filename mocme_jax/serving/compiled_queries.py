"""The compiled programs behind a trained model's answers, compiled once per model and shape.

A query is ``(entity, relation)`` with the relation in [0, 2R), as in training: r + R asks for the head of r. All
programs run in full float32, whatever the device's default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.additions.addition import ScoreAddition, adjusted
from mocme_jax.method.encoder import Carried
from mocme_jax.method.mocme import EntityVectors, MoCME
from mocme_jax.serving.top_candidates import Amounts, Best, Masks, best_of_all, cleared, in_blocks


class Tables(NamedTuple):
    """Encoded entities in blocks ``[n, S, W]``.

    Attributes:
      questions: see ``EntityVectors``; the same array as ``answers`` if both roles are equal.
      answers: see ``EntityVectors``.
      count: int32 scalar, the number of entities N.
      additions: score additions, with rows in blocks ``[n, S, k]``.
    """

    questions: jax.Array
    answers: jax.Array
    count: jax.Array
    additions: tuple[ScoreAddition, ...] = ()

    @property
    def candidates(self) -> tuple[jax.Array, list]:
        """The candidates in blocks, as ``match_of`` takes them."""
        return self.answers, [addition.rows for addition in self.additions]


def additions_in_blocks(additions: Sequence[ScoreAddition]) -> tuple[ScoreAddition, ...]:
    """Convert score additions on the host to those of ``Tables``."""
    return tuple(
        addition._replace(rows=jax.tree.map(in_blocks, addition.rows), whole=jax.tree.map(jnp.asarray, addition.whole))
        for addition in additions
    )


def rows_of(blocks: jax.Array, ids: jax.Array) -> jax.Array:
    """Return rows ``[B, d]`` of a table in blocks."""
    return blocks.reshape(-1, blocks.shape[-1])[ids]


def vectors_of(model: MoCME, blocks: jax.Array) -> jax.Array:
    """Return the vectors ``[n, S, H d]`` of a table for cosines, without the log weights that distances append."""
    width = model.encoder.structure_width
    return blocks if blocks.shape[-1] == width else blocks[..., :width]


def question(model: MoCME, variables: Any, questions, relations) -> jax.Array:
    """Compute query vectors ``[B, W]``.

    Args:
      model: the model.
      variables: the module's variables.
      questions: ``[B, W]``, vectors of the known entities, from ``EntityVectors.questions``.
      relations: int ``[B]`` in [0, 2R).
    """
    return model.apply(variables, questions, relations, method="query")


def _question_of(model: MoCME, variables: Any, tables: Tables, entities, relations) -> jax.Array:
    """Compute query vectors ``[B, W]`` of entities ``[B]`` and relations ``[B]``."""
    return question(model, variables, rows_of(tables.questions, entities), relations)


def match_of(model: MoCME, tables: Tables, relations: jax.Array) -> Callable:
    """Make ``(q [B, W], block of the tables' candidates) -> scores [B, S]`` for queries with relations ``[B]``."""

    def match(q: jax.Array, block: tuple[jax.Array, list]) -> jax.Array:
        answers, rows = block
        return adjusted(tables.additions, rows, model.match(q, answers).astype(jnp.float32), relations)

    return match


@functools.partial(jax.jit, static_argnames=("model", "k"))
def complete_questions(
    model: MoCME,
    variables: Any,
    tables: Tables,
    entities: jax.Array,
    relations: jax.Array,
    sharpness: jax.Array,
    masks: Masks,
    amounts: Amounts | None,
    *,
    k: int,
) -> Best:
    """Return the k best answers of queries ``entities [B], relations [B]``; see ``best_of_all`` for other arguments."""
    with jax.default_matmul_precision("highest"):
        q = _question_of(model, variables, tables, entities, relations)
    match = match_of(model, tables, relations)
    return best_of_all(match, q, tables.candidates, tables.count, sharpness, masks, k, amounts)


@functools.partial(jax.jit, static_argnames="model")
def weigh_questions(
    model: MoCME,
    variables: Any,
    tables: Tables,
    entities: jax.Array,
    relations: jax.Array,
    golds: jax.Array,
    masks: Masks,
    sharpnesses: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Compute the terms of the probability of gold answers, at every sharpness ``[G]``.

    Args:
      model: the model.
      variables: the module's variables.
      tables: all entities, encoded.
      entities: int32 ``[B]``, the known entities.
      relations: int32 ``[B]`` in [0, 2R).
      golds: int32 ``[B]``, the gold answers.
      masks: ``known_*`` must contain the gold answers; ``left_*`` are not used.
      sharpnesses: ``[G]``.

    Returns:
      The scores of the gold answers ``[B]``, and the log of the sum of exp(sharpness * score) over the candidates that
      are not known, ``[G, B]``.
    """
    match = match_of(model, tables, relations)
    with jax.default_matmul_precision("highest"):
        q = _question_of(model, variables, tables, entities, relations)
        blocks, size, _ = tables.answers.shape
        places = jnp.arange(size, dtype=jnp.int32)

        def one(carry, numbered):
            gold, top, totals = carry
            number, block = numbered
            first = number * size
            scores = match(q, block)
            inside = golds - first
            own = jnp.take_along_axis(scores, jnp.clip(inside, 0, size - 1)[:, None], axis=1)[:, 0]
            gold = jnp.where((inside >= 0) & (inside < size), own, gold)
            scores = jnp.where((first + places < tables.count)[None], scores, -jnp.inf)
            scores = cleared(scores, masks.known_rows, masks.known_ids - first)
            fresh = jnp.maximum(top, jnp.max(scores, axis=1))
            safe = jnp.where(jnp.isfinite(fresh), fresh, 0)
            offset = jnp.where(jnp.isfinite(top), top - safe, -jnp.inf)

            def at(pair):
                total, sharpness = pair
                powers = jnp.exp(sharpness * (scores - safe[:, None]))
                return total * jnp.exp(sharpness * offset) + jnp.sum(powers, axis=1)

            return (gold, fresh, jax.lax.map(at, (totals, sharpnesses))), None

        nothing = jnp.full(golds.shape, -jnp.inf)
        start = (jnp.zeros(golds.shape), nothing, jnp.zeros((len(sharpnesses), len(golds))))
        numbers = jnp.arange(blocks, dtype=jnp.int32)
        gold, top, totals = jax.lax.scan(one, start, (numbers, tables.candidates))[0]
        safe = jnp.where(jnp.isfinite(top), top, 0)
        return gold, jnp.log(totals) + sharpnesses[:, None] * safe[None]


def _both_ways(model: MoCME, variables: Any, head: tuple, relations: jax.Array, tail: tuple) -> jax.Array:
    """Score triples as tail queries and as head queries, ``[B, 2]``; ends are (query-role, answer-role) vectors."""
    forward = model.pair(question(model, variables, head[0], relations), tail[1])
    backward = model.pair(question(model, variables, tail[0], relations + model.num_relations), head[1])
    return jnp.stack([forward, backward], axis=1)


@functools.partial(jax.jit, static_argnames="model")
def score_vectors(model: MoCME, variables: Any, head: tuple, relations: jax.Array, tail: tuple) -> jax.Array:
    """Score triples as tail queries and as head queries, ``[B, 2]``.

    These and all scores of triples in this module are without score additions.

    Args:
      model: the model.
      variables: the module's variables.
      head: query-role and answer-role vectors ``[B, W]``.
      relations: int ``[B]`` in [0, R).
      tail: query-role and answer-role vectors ``[B, W]``.
    """
    with jax.default_matmul_precision("highest"):
        return _both_ways(model, variables, head, relations, tail)


@functools.partial(jax.jit, static_argnames="model")
def score_triples(model: MoCME, variables: Any, tables: Tables, triples: jax.Array) -> jax.Array:
    """Score triples ``[B, 3]`` as tail queries and as head queries: ``[B, 2]``."""
    with jax.default_matmul_precision("highest"):
        head, tail = (
            tuple(rows_of(table, triples[:, end]) for table in (tables.questions, tables.answers)) for end in (0, 2)
        )
        return _both_ways(model, variables, head, triples[:, 1], tail)


@functools.partial(jax.jit, static_argnames="model")
def score_relations(model: MoCME, variables: Any, tables: Tables, pairs: jax.Array) -> jax.Array:
    """Score every relation between heads and tails ``[B, 2]``, as the mean of both directions: ``[B, R]``."""
    with jax.default_matmul_precision("highest"):
        ends = [tuple(rows_of(table, ids) for table in (tables.questions, tables.answers)) for ids in pairs.T]

        def one(relation):
            relations = jnp.full(len(pairs), relation, jnp.int32)
            return jnp.mean(_both_ways(model, variables, ends[0], relations, ends[1]), axis=1)

        return jax.lax.map(one, jnp.arange(model.num_relations, dtype=jnp.int32)).T


@functools.partial(jax.jit, static_argnames="k")
def nearest_rows(blocks: jax.Array, count: jax.Array, wanted: jax.Array, masks: Masks, *, k: int) -> Best:
    """Return the k rows of a table ``[n, S, d]`` with the highest cosine to vectors ``[B, d]``."""
    return best_of_all(lambda q, block: q @ unit(block).T, unit(wanted), blocks, count, jnp.ones(len(wanted)), masks, k)


def encoded(model: MoCME, variables: Any, carried: Carried) -> EntityVectors:
    """Encode entities in both roles."""
    encoding = model.apply(variables, carried, method="encode")
    return model.apply(variables, encoding, method="entity_vectors")


@functools.partial(jax.jit, static_argnames="model")
def encode_some(model: MoCME, variables: Any, carried: Carried) -> EntityVectors:
    """Encode entities in both roles; compiled."""
    with jax.default_matmul_precision("highest"):
        return encoded(model, variables, carried)


@functools.partial(jax.jit, static_argnames="model")
def expert_shares(model: MoCME, variables: Any, carried: Carried, relations: jax.Array | None = None) -> jax.Array:
    """Compute each expert's share ``[n, H]`` of the weights of entities in queries; see ``MoCME.shares``."""
    with jax.default_matmul_precision("highest"):
        encoding = model.apply(variables, carried, method="encode")
        return model.apply(variables, encoding, relations, method="shares")


@functools.partial(jax.jit, static_argnames="model")
def relation_weights(model: MoCME, variables: Any) -> jax.Array:
    """Compute the factor ``[2R, H]`` of each relation in the weights of the experts."""
    relations = jnp.arange(2 * model.num_relations, dtype=jnp.int32)
    return jnp.exp(model.apply(variables, relations, method="relation_log_weights"))


@functools.partial(jax.jit, static_argnames="model")
def experts_of(model: MoCME, variables: Any, carried: Carried) -> tuple[jax.Array, ...]:
    """Return each expert's encoding ``[n, H, d]``, and the weights ``[n, H]`` of entities in queries and as answers."""
    with jax.default_matmul_precision("highest"):
        encoding = model.apply(variables, carried, method="encode")
        asked, answering = (
            jnp.exp(model.apply(variables, encoding, answers=answers, method="log_weights"))
            for answers in (False, True)
        )
        return encoding.vectors, asked, answering


@jax.jit
def cosines(blocks: jax.Array, wanted: jax.Array) -> jax.Array:
    """Compute the cosines ``[B, n * S]`` of vectors ``[B, d]`` with every row of a table ``[n, S, d]``."""
    with jax.default_matmul_precision("highest"):
        return (
            jax.lax.map(lambda block: unit(wanted) @ unit(block).T, blocks).transpose(1, 0, 2).reshape(len(wanted), -1)
        )


def unit(x: jax.Array) -> jax.Array:
    """Scale rows to length 1; rows of zeros stay zeros."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-30))
