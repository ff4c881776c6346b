"""Where a ranker finds the vectors of entities: in encoded tables, or by encoding a block of entities at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.mesh import ROWS
from mocme_jax.parallel.sharded_tables import take_everywhere


class EntitySource(NamedTuple):
    """Functions that return vectors of entities, for the work of one device. Each device answers for its S entities.

    Attributes:
      spec: which parts of the tables are sharded over the devices.
      rows: ``tables -> S``.
      block: ``(params, tables, first, size) -> [size, W]``, the answer vectors of this device's entities from ``first``
        on; ``size`` is static, and the block is within the S entities.
      answers: ``(params, tables, places [n]) -> [n, W]``, the answer vectors of this device's entities at some of its S
        rows.
      questions: ``(params, tables, ids [n]) -> [n, W]``, the question vectors of entities on any device; the ids are
        the same on every device.
    """

    spec: Any
    rows: Callable[[Any], int]
    block: Callable[[Any, Any, jax.Array, int], jax.Array]
    answers: Callable[[Any, Any, jax.Array], jax.Array]
    questions: Callable[[Any, Any, jax.Array], jax.Array]


ENCODED = EntitySource(
    EntityVectors(ROWS, ROWS),
    lambda vectors: len(vectors.answers),
    lambda params, vectors, first, size: jax.lax.dynamic_slice_in_dim(vectors.answers, first, size),
    lambda params, vectors, places: vectors.answers[places],
    lambda params, vectors, ids: take_everywhere(vectors.questions, ids),
)
"""The source whose tables are ``EntityVectors`` of all entities."""
