"""Passes over all entities in blocks, which find the k best and the total weight of the rest in bounded memory.

The scores of B queries and N candidates are never held together, only ``[B, S]`` of one block. Among equal scores, the
lower id comes first, wherever blocks begin.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The approximate number of candidates per block, and per group with one maximum in the search for the best.
_BLOCK = 4096
_GROUP = 64


class Best(NamedTuple):
    """Running results of B queries over blocks of candidates.

    Attributes:
      scores: ``[B, k]``, best first; -inf if there are fewer candidates.
      ids: ``[B, k]``, their ids.
      top: ``[B]``, the highest score of a counted candidate.
      total: ``[B]``, the sum of exp(sharpness * (score - top)) over the counted candidates.
    """

    scores: jax.Array
    ids: jax.Array
    top: jax.Array
    total: jax.Array


class Pairs(NamedTuple):
    """Pairs of a query's row and a candidate's id, ``[W]`` each; row B stands for no pair.

    Attributes:
      rows: int32, the query's row.
      ids: int32, the candidate's id.
      amounts: float32, amounts to add to the scores of the pairs, which are then distinct; None: no amounts.
    """

    rows: jax.Array
    ids: jax.Array
    amounts: jax.Array | None = None

    def inside(self, first: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        """Return rows and columns in scores ``[B, S]`` of a block; a column S stands for a pair of another block."""
        places = self.ids - first
        return self.rows, jnp.where((places >= 0) & (places < size), places, size)


def block_size(candidates: int) -> int:
    """Return the number of candidates per block such that blocks are equal and padding is small."""
    blocks = -(-candidates // _BLOCK)
    return -(-candidates // blocks // _GROUP) * _GROUP


def in_blocks(table: np.ndarray | jax.Array) -> jax.Array:
    """Arrange a table ``[N, d]`` in blocks ``[n, S, d]``, padded with zeros."""
    size = block_size(len(table))
    filled = jnp.pad(jnp.asarray(table), ((0, -len(table) % size), (0, 0)))
    return filled.reshape(-1, size, table.shape[1])


def pairs_of(rows: np.ndarray, ids: np.ndarray, queries: int, amounts: np.ndarray | None = None) -> Pairs:
    """Make pairs with few different shapes from any number of them, for a number of queries B."""
    # The first of 64, 512, 4096, ... that holds them.
    size = 64
    while size < len(rows):
        size *= 8

    def padded(values: np.ndarray, kind: type, fill: int = 0) -> np.ndarray:
        return np.pad(values.astype(kind), (0, size - len(values)), constant_values=fill)

    added = None if amounts is None else padded(amounts, np.float32)
    return Pairs(padded(rows, np.int32, queries), padded(ids, np.int32), added)


def block_top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the k best of ``[B, S]`` and their positions, like ``lax.top_k``, three times as fast for few of many.

    The k best are in the k groups with the highest maxima. Groups are kept in order, and therefore ties are too.
    """
    rows, size = scores.shape
    if size % _GROUP or k >= size // _GROUP:
        return jax.lax.top_k(scores, k)
    grouped = scores.reshape(rows, -1, _GROUP)
    groups = jnp.sort(jax.lax.top_k(jnp.max(grouped, axis=2), k)[1], axis=1)
    inside = jnp.take_along_axis(grouped, groups[:, :, None], axis=1).reshape(rows, -1)
    values, places = jax.lax.top_k(inside, k)
    return values, jnp.take_along_axis(groups, places // _GROUP, axis=1) * _GROUP + places % _GROUP


def cleared(scores: jax.Array, pairs: Pairs, first: jax.Array) -> jax.Array:
    """Set scores ``[B, S]`` of the block that begins with the candidate ``first`` to -inf at pairs; they may repeat."""
    return scores.at[pairs.inside(first, scores.shape[1])].set(-jnp.inf, mode="drop")


def best_of_all(
    match: Callable,
    q: jax.Array,
    candidates: Any,
    count: jax.Array,
    sharpness: jax.Array,
    known: Pairs,
    left: Pairs,
    k: int,
    added: Pairs | None = None,
) -> Best:
    """Return the k best candidates of every query, and the total weight of candidates that are not known.

    Args:
      match: ``(q [B, d_q], candidates [S, d]) -> [B, S]``.
      q: ``[B, d_q]``.
      candidates: ``[n, S, d]``, or a tree of such arrays, of which ``match`` gets one block each.
      count: the number of real candidates N.
      sharpness: ``[B]``, the factor of scores inside the exponential.
      known: the candidates that do not count in ``Best.total``.
      left: the candidates that are left out of the k best.
      k: the number of candidates to return.
      added: amounts to add to single scores; None for none.
    """
    blocks, size, _ = jax.tree.leaves(candidates)[0].shape
    rows = len(q)
    taken = min(k, size)
    places = jnp.arange(size, dtype=jnp.int32)

    def one(best: Best, numbered):
        number, block = numbered
        first = number * size
        scores = match(q, block).astype(jnp.float32)
        if added is not None:
            scores = scores.at[added.inside(first, size)].add(added.amounts, mode="drop")
        scores = jnp.where((first + places < count)[None], scores, -jnp.inf)
        counted = cleared(scores, known, first)
        listed = cleared(scores, left, first)
        top = jnp.maximum(best.top, jnp.max(counted, axis=1))
        safe = jnp.where(jnp.isfinite(top), top, 0)
        before = jnp.where(jnp.isfinite(best.top), jnp.exp(sharpness * (best.top - safe)), 0)
        total = best.total * before + jnp.sum(jnp.exp(sharpness[:, None] * (counted - safe[:, None])), axis=1)
        values, inside = block_top_k(listed, taken)
        # Earlier results come first, so the lower id wins among equal scores.
        values = jnp.concatenate([best.scores, values], axis=1)
        ids = jnp.concatenate([best.ids, first + inside.astype(jnp.int32)], axis=1)
        values, chosen = jax.lax.top_k(values, k)
        return Best(values, jnp.take_along_axis(ids, chosen, axis=1), top, total), None

    nothing = jnp.full((rows,), -jnp.inf)
    start = Best(jnp.full((rows, k), -jnp.inf), jnp.zeros((rows, k), jnp.int32), nothing, jnp.zeros((rows,)))
    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(one, start, (jnp.arange(blocks, dtype=jnp.int32), candidates))[0]
