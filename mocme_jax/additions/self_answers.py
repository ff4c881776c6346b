"""Triples from an entity to itself, which most relations never have."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mocme_jax.data.graph.triple_keys import pieces


def relations_with_loops(splits: Iterable[np.ndarray], relations: int) -> np.ndarray:
    """Which relations have a triple whose head is its tail.

    Args:
      splits: int ``[T, 3]`` each; memory-mapped ones are read in pieces.
      relations: R.

    Returns:
      bool ``[R]``.
    """
    found = np.zeros(relations, bool)
    for triples in splits:
        for piece in pieces(triples):
            found[piece[piece[:, 0] == piece[:, 2], 1]] = True
    return found
