"""The two folds of dev. What is fitted on one of them is ranked on the other."""

from collections.abc import Sequence

import numpy as np

_SEED = 0


def dev_folds(triples: int) -> list[np.ndarray]:
    """Divide T dev triples at random into two folds, bool ``[T]`` each; a single triple is a fold of its own."""
    first = np.random.default_rng(_SEED).permutation(triples) % 2 == 0
    return [fold for fold in (first, ~first) if fold.any()]


def from_folds(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Put together what was computed for the queries of each fold.

    Args:
      parts: for each fold, ``[2T_i, ...]``: the tail queries of the fold's T_i triples, then their head queries.

    Returns:
      ``[2T, ...]``: the tail queries of all T triples, then their head queries.
    """
    whole = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    for fold, part in zip(dev_folds(len(whole) // 2), parts, strict=True):
        whole[np.tile(fold, 2)] = part
    return whole
