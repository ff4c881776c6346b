"""Self-answers: an entity is no answer to a query about itself if train has no such triple of the relation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mocme_jax.additions.addition import Array
from mocme_jax.data.graph.triple_keys import pieces


class SelfAnswers(NamedTuple):
    """A bar.

    Attributes:
      never: bool ``[2R]``, whether no entity answers a query about itself.
    """

    never: Any

    def ruled_out(self, entities: Array, relations: Array) -> Array:
        """The entity itself, or -1; see ``Bar``."""
        library = entities.__array_namespace__()
        return library.where(self.never[relations], entities, -1)


def find_self_answers(train: np.ndarray, relations: int) -> SelfAnswers:
    """Rules out what train, int ``[T, 3]``, never shows, for R relations."""
    never = np.ones(relations, bool)
    for piece in pieces(train):
        never[piece[piece[:, 0] == piece[:, 2], 1]] = False
    return SelfAnswers(np.tile(never, 2))
