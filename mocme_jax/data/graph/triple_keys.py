"""Triples as single numbers: what is equal, and what is distinct."""

from collections.abc import Iterator

import numpy as np

# Rows read at a time: 12 MB.
_PIECE = 1 << 20


def triple_keys(*splits: np.ndarray) -> tuple[np.ndarray, ...]:
    """One int64 a triple ``[T]``, the same for equal triples in any of the splits given together."""
    every = np.concatenate([np.asarray(split, np.int64).reshape(-1, 3) for split in splits])
    if not len(every):
        return tuple(np.zeros(0, np.int64) for _ in splits)
    entities, relations = int(every[:, [0, 2]].max()) + 1, int(every[:, 1].max()) + 1
    keys = (every[:, 0] * relations + every[:, 1]) * entities + every[:, 2]
    return tuple(np.split(keys, np.cumsum([len(split) for split in splits])[:-1]))


def pieces(triples: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in their order, a million at a time, so that memory-mapped ones are never held as a whole."""
    for first in range(0, len(triples), _PIECE):
        yield np.asarray(triples[first : first + _PIECE])


def distinct_triples(triples: np.ndarray) -> np.ndarray:
    """The triples ``[T', 3]`` without repetition, sorted by head, relation, tail."""
    # One number a triple sorts many times faster than np.unique over rows.
    (keys,) = triple_keys(triples)
    return triples[np.unique(keys, return_index=True)[1]]
