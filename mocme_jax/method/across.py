"""The interface ``Across``, with which losses and weights reduce over columns that other devices hold.

Losses and entropy weights reduce rows of scores ``[B, C]`` over their C columns. On one device all columns are local.
On several devices, each holder has some of the columns of all B rows, and computes the losses of its own b rows. The
functions take the difference as the argument ``across`` and do not depend on devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax


class Across(NamedTuple):
    """Reductions over the columns of all holders. With one holder, b = B.

    Attributes:
      sum: a total over the local columns -> the total over all columns, on every holder.
      max: a maximum over the local columns -> the maximum over all columns, on every holder.
      own_sum: totals ``[B]`` over the local columns -> totals ``[b]`` over all columns, for the local rows.
      own: all rows ``[B, ...]`` -> the local rows ``[b, ...]``.
      everyone: the local rows ``[b, ...]`` -> all rows ``[B, ...]``, on every holder.
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
