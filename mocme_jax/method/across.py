"""How reductions over the columns of a batch's scores reach columns that somebody else holds.

The losses and the entropy weights reduce rows of scores ``[B, C]`` over their C columns. On one device all columns are
at hand. Over several, each holder has some of the columns of all B rows, and answers for the losses of its own b rows.
A function that reduces takes the difference as its argument ``across``, and knows of no device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax


class Across(NamedTuple):
    """What joins the holders of the columns; with one holder, b = B.

    Attributes:
      sum: a total over one's own columns -> the total over all columns, on every holder.
      max: the same for a maximum.
      own_sum: totals ``[B]`` over one's own columns -> totals ``[b]`` over all columns, of one's own rows.
      own: what every holder has of all rows ``[B, ...]`` -> one's own rows ``[b, ...]``.
      everyone: one's own rows ``[b, ...]`` -> all rows ``[B, ...]``, on every holder.
    """

    sum: Callable[[jax.Array], jax.Array]
    max: Callable[[jax.Array], jax.Array]
    own_sum: Callable[[jax.Array], jax.Array]
    own: Callable[[jax.Array], jax.Array]
    everyone: Callable[[jax.Array], jax.Array]


def _itself(array: jax.Array) -> jax.Array:
    return array


LOCAL = Across(_itself, _itself, _itself, _itself, _itself)
"""One holder of all columns and rows."""
