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
from mocme_jax.serving.top_candidates import Best, Pairs, best_of_all, cleared, in_blocks


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


def compiled(*static: str) -> Callable[[Callable], Callable]:
    """Make a decorator that compiles a function, in full float32. Arguments named in ``static`` are static."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def exact(*arguments: Any, **named: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return function(*arguments, **named)

        return jax.jit(exact, static_argnames=static)

    return decorate


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


def question_of(model: MoCME, variables: Any, tables: Tables, questions: jax.Array) -> jax.Array:
    """Compute the vectors ``[B, W]`` of queries ``[B, 2]``, entity and relation; further columns are ignored."""
    return model.apply(variables, rows_of(tables.questions, questions[:, 0]), questions[:, 1], method="query")


def match_of(model: MoCME, tables: Tables, relations: jax.Array) -> Callable:
    """Make ``(q [B, W], block of the tables' candidates) -> scores [B, S]`` for queries with relations ``[B]``."""

    def match(q: jax.Array, block: tuple[jax.Array, list]) -> jax.Array:
        answers, rows = block
        return adjusted(tables.additions, rows, model.match(q, answers).astype(jnp.float32), relations)

    return match


@compiled("model", "k")
def complete_questions(
    model: MoCME,
    variables: Any,
    tables: Tables,
    questions: jax.Array,
    sharpness: jax.Array,
    known: Pairs,
    left: Pairs,
    added: Pairs | None,
    *,
    k: int,
) -> Best:
    """Return the k best answers of queries ``[B, 2]``, entity and relation; see ``best_of_all`` for other arguments."""
    q = question_of(model, variables, tables, questions)
    match = match_of(model, tables, questions[:, 1])
    return best_of_all(match, q, tables.candidates, tables.count, sharpness, known, left, k, added)


@compiled("model")
def weigh_questions(
    model: MoCME, variables: Any, tables: Tables, asked: jax.Array, known: Pairs, sharpnesses: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute the terms of the probability of gold answers, at every sharpness ``[G]``.

    Args:
      variables: the module's variables.
      tables: all entities, encoded.
      asked: int32 ``[B, 3]``, the known entity, the relation in [0, 2R) and the gold answer.
      known: the candidates that are known answers, which must contain the gold answers.
      sharpnesses: ``[G]``.

    Returns:
      The scores of the gold answers ``[B]``, and the log of the sum of exp(sharpness * score) over the candidates that
      are not known, ``[G, B]``.
    """
    match, golds = match_of(model, tables, asked[:, 1]), asked[:, 2]
    q = question_of(model, variables, tables, asked)
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
        scores = cleared(scores, known, first)
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
    """Score triples as tail queries and as head queries, ``[B, 2]``.

    These and all scores of triples in this module are without score additions.

    Args:
      variables: the module's variables.
      head: query-role and answer-role vectors ``[B, W]``.
      relations: int ``[B]`` in [0, R).
      tail: query-role and answer-role vectors ``[B, W]``.
    """
    forward = model.apply(variables, head[0], relations, method="query")
    backward = model.apply(variables, tail[0], relations + model.num_relations, method="query")
    return jnp.stack([model.pair(forward, tail[1]), model.pair(backward, head[1])], axis=1)


score_vectors = compiled("model")(_both_ways)


@compiled("model")
def score_triples(model: MoCME, variables: Any, tables: Tables, triples: jax.Array) -> jax.Array:
    """Score triples ``[B, 3]`` as tail queries and as head queries: ``[B, 2]``."""
    head, tail = (
        tuple(rows_of(table, triples[:, end]) for table in (tables.questions, tables.answers)) for end in (0, 2)
    )
    return _both_ways(model, variables, head, triples[:, 1], tail)


@compiled("model")
def score_relations(model: MoCME, variables: Any, tables: Tables, pairs: jax.Array) -> jax.Array:
    """Score every relation between heads and tails ``[B, 2]``, as the mean of both directions: ``[B, R]``."""
    ends = [tuple(rows_of(table, ids) for table in (tables.questions, tables.answers)) for ids in pairs.T]

    def one(relation):
        relations = jnp.full(len(pairs), relation, jnp.int32)
        return jnp.mean(_both_ways(model, variables, ends[0], relations, ends[1]), axis=1)

    return jax.lax.map(one, jnp.arange(model.num_relations, dtype=jnp.int32)).T


@compiled("k")
def nearest_rows(blocks: jax.Array, count: jax.Array, wanted: jax.Array, itself: Pairs, *, k: int) -> Best:
    """Return the k rows of a table ``[n, S, d]`` with the highest cosine to vectors ``[B, d]``, without ``itself``."""
    ones = jnp.ones(len(wanted))
    return best_of_all(lambda q, block: q @ unit(block).T, unit(wanted), blocks, count, ones, itself, itself, k)


@compiled("model")
def encode_some(model: MoCME, variables: Any, carried: Carried) -> EntityVectors:
    """Encode entities in both roles."""
    encoding = model.apply(variables, carried, method="encode")
    return model.apply(variables, encoding, method="entity_vectors")


@compiled("model")
def expert_shares(model: MoCME, variables: Any, carried: Carried, relations: jax.Array | None = None) -> jax.Array:
    """Compute each expert's share ``[n, H]`` of the weights of entities in queries; see ``MoCME.shares``."""
    encoding = model.apply(variables, carried, method="encode")
    return model.apply(variables, encoding, relations, method="shares")


@compiled("model")
def relation_weights(model: MoCME, variables: Any) -> jax.Array:
    """Compute the factor ``[2R, H]`` of each relation in the weights of the experts."""
    relations = jnp.arange(2 * model.num_relations, dtype=jnp.int32)
    return jnp.exp(model.apply(variables, relations, method="relation_log_weights"))


@compiled("model")
def experts_of(model: MoCME, variables: Any, carried: Carried) -> tuple[jax.Array, ...]:
    """Return each expert's encoding ``[n, H, d]``, and the weights ``[n, H]`` of entities in queries and as answers."""
    encoding = model.apply(variables, carried, method="encode")
    asked, answering = (
        jnp.exp(model.apply(variables, encoding, answers=answers, method="log_weights")) for answers in (False, True)
    )
    return encoding.vectors, asked, answering


@compiled()
def cosines(blocks: jax.Array, wanted: jax.Array) -> jax.Array:
    """Compute the cosines ``[B, n * S]`` of vectors ``[B, d]`` with every row of a table ``[n, S, d]``."""
    return jax.lax.map(lambda block: unit(wanted) @ unit(block).T, blocks).transpose(1, 0, 2).reshape(len(wanted), -1)


def unit(x: jax.Array) -> jax.Array:
    """Scale rows to length 1; rows of zeros stay zeros."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-30))
