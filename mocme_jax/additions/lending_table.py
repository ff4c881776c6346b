"""Structure lent to entities of few training triples by those that carry much the same.

What an entity's row of the structure table has learned is as good as its triples are many. An entity that train never
shows has learned nothing at all: as a candidate it was pushed away from every question. Its features still say who is
like it, and theirs is the best guess at its own structure; so much the more where they say it of few triples. It is a
running mean in which the neighbours count as ``share`` triples (shrinkage towards a prior mean; Efron and Morris, JASA
1973), of directions: lengths are how sure an answer may be, and stay as they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mocme_jax.additions.lending import Lenders

UNSEEN = 0.7
"""The length of a row that is all lent, in mean lengths of the rows of entities that train shows.

Whoever train shows is ruled out as an answer where it is known; an entity without triples never is. A full length
would put it above too many.
"""


def lend(structure: jax.Array, lenders: Lenders, share: float) -> jax.Array:
    """The structure table ``[N, d]`` after lending.

    Args:
      structure: ``[N, d]``, as learned.
      lenders: of the N entities.
      share: an entity of n training triples takes ``share / n`` of its lenders' mean, at a typical length, to its own
        row, and keeps its length. One of none takes ``UNSEEN`` of it alone. Where nobody is alike, rows stay.
    """
    ids, weights, triples = jax.tree.map(jnp.asarray, lenders)

    def add(number, mean):
        return mean + weights[:, number, None] * structure[ids[:, number]]

    mean = jax.lax.fori_loop(0, ids.shape[1], add, jnp.zeros_like(structure))
    seen = triples > 0
    lengths = _lengths(structure)
    typical = jnp.sum(jnp.where(seen[:, None], lengths, 0)) / jnp.maximum(jnp.sum(seen), 1)
    borrowed = typical * mean / jnp.maximum(_lengths(mean), 1e-12)
    mixed = structure + (share / jnp.maximum(triples, 1))[:, None] * borrowed
    mixed = mixed * lengths / jnp.maximum(_lengths(mixed), 1e-12)
    lent = jnp.where(seen[:, None], mixed, UNSEEN * borrowed)
    return jnp.where(jnp.sum(weights, axis=1, keepdims=True) > 0, lent, structure)


def _lengths(rows: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(rows * rows, axis=1, keepdims=True))
