"""Self-answers: an entity cannot answer a query about itself if train has no such triple of the relation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mocme_jax.additions.addition import Array
from mocme_jax.data.graph.triple_keys import pieces


class SelfAnswers(NamedTuple):
    """A bar against self-answers.

    Attributes:
      never: bool ``[2R]``, whether train has no triple of the relation from an entity to itself.
    """

    never: Any

    def ruled_out(self, entities: Array, relations: Array) -> Array:
        """Return the entity of the query itself, or -1; see ``Bar``."""
        library = entities.__array_namespace__()
        return library.where(self.never[relations], entities, -1)


def find_self_answers(train: np.ndarray, relations: int) -> SelfAnswers:
    """Make the bar from the training triples.

    Args:
      train: int ``[T, 3]``.
      relations: the number of relations R.
    """
    never = np.ones(relations, bool)
    for piece in pieces(train):
        never[piece[piece[:, 0] == piece[:, 2], 1]] = False
    return SelfAnswers(np.tile(never, 2))
