"""Numeric attributes as a modality: robust values, and a mask that says which were given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.graph import Modality, make_modality
from mocme_jax.data.lines import read_lines
from mocme_jax.data.names import entity_finder
from mocme_jax.errors import UserError

# So many cells may be empty as they like; of more, one in so many must be given.
_CELLS, _LEAST_SHARE = 1 << 24, 256


def numeric_modality(path: Path, entities: Sequence[str], *, min_rows: int = 5) -> Modality:
    """The modality ``numeric`` from rows ``entity<TAB>attribute<TAB>value``.

    Each attribute is replaced by its rank among the entities that have it, scaled to (-1, 1) with ties
    sharing their mean rank: one outlier cannot flatten the rest, and units drop out. An entity with several
    values of one attribute counts with their mean. Features are ``[values, 0 where missing | 1 where given,
    else 0]``, so ``[N, 2 A]``, with the attributes in alphabetic order; an entity is present if it has any
    attribute that was kept.

    Args:
      path: the triples; entities by id or by name. A first line that ends in the word ``value`` is a header.
      entities: names by id.
      min_rows: attributes given for fewer entities are dropped, unless that would drop all of them.

    Raises:
      UserError: a malformed line, a value that is no finite number, or an entity the graph has not.
    """
    first_line, keys, attributes, values = _read_rows(path)
    find = entity_finder(entities, keys)
    found = [find(key) for key in keys]
    if None in found:
        number = found.index(None)
        raise UserError(
            f"{path}:{number + first_line}: {keys[number][:60]!r} is no entity of the graph "
            f"({found.count(None)} such rows); write one of its names or an id from 0 to {len(entities) - 1}"
        )
    height = len(entities)
    _, column = np.unique(np.array(attributes), return_inverse=True)
    # A cell is an attribute of an entity. Only those that are given are held: all would be N times A.
    cells, cell = np.unique(column * height + np.array(found), return_inverse=True)
    means = np.bincount(cell, weights=values) / np.bincount(cell)
    attribute, entity = np.divmod(cells, height)
    counts = np.bincount(attribute)
    kept = np.flatnonzero(counts >= min_rows) if (counts >= min_rows).any() else np.arange(len(counts))
    if len(kept) * height > max(_CELLS, _LEAST_SHARE * len(cells)):
        raise UserError(
            f"{path}: {len(kept):,} attributes of {height:,} entities would be {len(kept) * height:,} cells for "
            f"{len(cells):,} values; leave out attributes that few entities have"
        )
    features = np.zeros((height, 2 * len(kept)), np.float32)
    for position, index in enumerate(kept):
        # Cells are in the order of attributes.
        of_it = slice(*np.searchsorted(attribute, (index, index + 1)))
        features[entity[of_it], position] = quantile_scale(means[of_it])
        features[entity[of_it], len(kept) + position] = 1
    return make_modality("numeric", features, features[:, len(kept) :].any(1))


def quantile_scale(values: np.ndarray) -> np.ndarray:
    """Ranks of ``values [n]`` scaled to the open interval (-1, 1), mean 0; equal values share their mean
    rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    return (2 * mean_rank[group] - 1) / len(values) - 1


def _read_rows(path: Path) -> tuple[int, list[str], list[str], list[float]]:
    lines = read_lines(path)
    first = 2 if lines and lines[0].split("\t")[-1].strip().lower() == "value" else 1
    keys, attributes, values = [], [], []
    for number, line in enumerate(lines[first - 1 :], start=first):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 3 or not fields[0] or not fields[1]:
            raise UserError(
                f"{path}:{number}: expected 'entity<TAB>attribute<TAB>value', found {line[:60]!r}"
            )
        # Python's float takes underscores and digits of other scripts, too.
        try:
            value = float(fields[2]) if fields[2].isascii() and "_" not in fields[2] else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"{path}:{number}: value {fields[2][:40]!r} is no finite number; correct or remove the line"
            )
        keys.append(fields[0])
        attributes.append(fields[1])
        values.append(value)
    if not keys:
        raise UserError(f"{path}: holds no rows 'entity<TAB>attribute<TAB>value'")
    return first, keys, attributes, values
