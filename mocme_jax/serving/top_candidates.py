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


class Masks(NamedTuple):
    """Pairs of a query's row and a candidate's id, int32 ``[W]`` each; row B stands for no pair.

    Attributes:
      known_rows: rows of candidates that do not count in ``Best.total``.
      known_ids: their ids.
      left_rows: rows of candidates that are left out of the k best.
      left_ids: their ids.
    """

    known_rows: jax.Array
    known_ids: jax.Array
    left_rows: jax.Array
    left_ids: jax.Array


class Amounts(NamedTuple):
    """Amounts to add to scores, ``[W]`` each, every pair once; row B stands for no pair.

    Attributes:
      rows: the query's row.
      ids: the candidate's id.
      amounts: the amount.
    """

    rows: jax.Array
    ids: jax.Array
    amounts: jax.Array


def block_size(candidates: int) -> int:
    """Return the number of candidates per block such that blocks are equal and padding is small."""
    blocks = -(-candidates // _BLOCK)
    return -(-candidates // blocks // _GROUP) * _GROUP


def in_blocks(table: np.ndarray | jax.Array) -> jax.Array:
    """Arrange a table ``[N, d]`` in blocks ``[n, S, d]``, padded with zeros."""
    size = block_size(len(table))
    filled = jnp.pad(jnp.asarray(table), ((0, -len(table) % size), (0, 0)))
    return filled.reshape(-1, size, table.shape[1])


def bucket(count: int) -> int:
    """Return the first of 64, 512, 4096, ... that is at least ``count``, so that few shapes are compiled."""
    size = 64
    while size < count:
        size *= 8
    return size


def padded(values: np.ndarray, size: int, fill: int, kind=np.int32) -> np.ndarray:
    """Pad values with ``fill`` to ``[size]``."""
    result = np.full(size, fill, kind)
    result[: len(values)] = values
    return result


def masks_of(known: tuple[np.ndarray, np.ndarray], left: tuple[np.ndarray, np.ndarray] | None, rows: int) -> Masks:
    """Make masks with few different shapes from any number of pairs (rows, ids).

    Args:
      known: see ``Masks``.
      left: see ``Masks``; None leaves nothing out.
      rows: the number of queries B.
    """
    left = (np.zeros(0, np.int32),) * 2 if left is None else left
    sizes = [bucket(len(pair[0])) for pair in (known, left)]
    fields = []
    for pair, size in zip((known, left), sizes, strict=True):
        fields += [padded(pair[0], size, rows), padded(pair[1], size, 0)]
    return Masks(*fields)


def amounts_of(rows: np.ndarray, ids: np.ndarray, amounts: np.ndarray, queries: int) -> Amounts:
    """Make amounts with few different shapes for a number of queries."""
    size = bucket(len(rows))
    return Amounts(padded(rows, size, queries), padded(ids, size, 0), padded(amounts, size, 0, np.float32))


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


def cleared(scores: jax.Array, rows: jax.Array, places: jax.Array) -> jax.Array:
    """Set scores ``[B, S]`` to -inf at pairs (row, position) ``[W]``. Positions outside the block are ignored.

    One value is written, so pairs may repeat.
    """
    size = scores.shape[1]
    inside = jnp.where((places >= 0) & (places < size), places, size)
    return scores.at[rows, inside].set(-jnp.inf, mode="drop")


def raised(scores: jax.Array, rows: jax.Array, places: jax.Array, amounts: jax.Array) -> jax.Array:
    """Add amounts to scores ``[B, S]`` at pairs (row, position) ``[W]``. Positions outside the block are ignored."""
    size = scores.shape[1]
    inside = jnp.where((places >= 0) & (places < size), places, size)
    return scores.at[rows, inside].add(amounts, mode="drop")


def best_of_all(
    match: Callable,
    q: jax.Array,
    candidates: Any,
    count: jax.Array,
    sharpness: jax.Array,
    masks: Masks,
    k: int,
    amounts: Amounts | None = None,
) -> Best:
    """Return the k best candidates of every query, and the total weight of candidates that are not known.

    Args:
      match: ``(q [B, d_q], candidates [S, d]) -> [B, S]``.
      q: ``[B, d_q]``.
      candidates: ``[n, S, d]``, or a tree of such arrays, of which ``match`` gets one block each.
      count: the number of real candidates N.
      sharpness: ``[B]``, the factor of scores inside the exponential.
      masks: the candidates that do not count, and those that are left out.
      k: the number of candidates to return.
      amounts: amounts to add to single scores; None for none.
    """
    blocks, size, _ = jax.tree.leaves(candidates)[0].shape
    rows = len(q)
    taken = min(k, size)
    places = jnp.arange(size, dtype=jnp.int32)

    def one(best: Best, numbered):
        number, block = numbered
        first = number * size
        scores = match(q, block).astype(jnp.float32)
        if amounts is not None:
            scores = raised(scores, amounts.rows, amounts.ids - first, amounts.amounts)
        scores = jnp.where((first + places < count)[None], scores, -jnp.inf)
        counted = cleared(scores, masks.known_rows, masks.known_ids - first)
        listed = cleared(scores, masks.left_rows, masks.left_ids - first)
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
