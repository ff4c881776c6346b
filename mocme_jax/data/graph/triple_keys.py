"""Triples as single numbers: what is equal, and what is distinct."""

from collections.abc import Iterator, Sequence

import numpy as np

# Rows read at a time: 12 MB.
_PIECE = 1 << 20


def triple_keys(*splits: np.ndarray) -> tuple[np.ndarray, ...]:
    """One int64 a triple ``[T]``, the same for equal triples in any of the splits given together."""
    sizes = key_sizes(*splits)
    return tuple(keys_of(split, *sizes) for split in splits)


def key_sizes(*splits: np.ndarray) -> tuple[int, int]:
    """The numbers of entities and of relations, as far as the splits show them, with which their keys are made."""
    found = [split for split in splits if len(split)]
    entities, relations = (max((split[:, c].max() for split in found for c in cs), default=0) for cs in ((0, 2), (1,)))
    return int(entities) + 1, int(relations) + 1


def keys_of(triples: np.ndarray, entities: int, relations: int) -> np.ndarray:
    """The keys int64 ``[T]`` of triples, in the order of head, relation, tail."""
    return row_keys(triples.T, (relations, entities))


def row_keys(columns: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """One int64 per row ``[T]`` of columns of ids, in the order of the columns; sizes are of those after the first."""
    keys = columns[0].astype(np.int64)
    for column, size in zip(columns[1:], sizes, strict=True):
        keys *= size
        keys += column
    return keys


def pieces(triples: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in their order, a million at a time, so that memory-mapped ones are never held as a whole."""
    for first in range(0, len(triples), _PIECE):
        yield np.asarray(triples[first : first + _PIECE])


def distinct_triples(triples: np.ndarray) -> np.ndarray:
    """The triples ``[T', 3]`` without repetition, sorted by head, relation, tail."""
    # One number a triple sorts many times faster than np.unique over rows, and tells the triple.
    entities, relations = key_sizes(triples)
    keys = keys_of(triples, entities, relations)
    keys.sort()
    keys = keys[np.diff(keys, prepend=-1) > 0]
    distinct = np.empty((len(keys), 3), triples.dtype)
    keys, distinct[:, 2] = np.divmod(keys, entities)
    distinct[:, 0], distinct[:, 1] = np.divmod(keys, relations)
    return distinct
