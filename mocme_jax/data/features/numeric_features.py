"""Numeric attributes as a modality: robust values, and a mask that says which were given."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.features.attribute_values import quantile, triangle_columns, triangles, width_with_triangles
from mocme_jax.data.features.numeric_tables import read_numeric_rows
from mocme_jax.data.graph.entity_names import entity_finder, tell_left_out
from mocme_jax.data.graph.knowledge_graph import Modality, make_modality
from mocme_jax.errors import UserError, refuse

RANKS = "ranks"
"""What numeric features are made by, see attribute_values."""

# So many cells may be empty as they like; of more, one in so many must be given.
_CELLS, _LEAST_SHARE = 1 << 24, 256


def numeric_modality(
    path: Path,
    entities: Sequence[str],
    *,
    min_rows: int = 5,
    notify: Callable[[str], None] = print,
    bad: Callable[[str], None] = refuse,
) -> Modality:
    """The modality ``numeric`` from rows ``entity<TAB>attribute<TAB>value``, or a table with one row per entity.

    Each attribute is replaced by its rank among the entities that have it, scaled to (-1, 1) with ties sharing their
    mean rank, so that neither outliers nor units matter. Several values of one attribute count with their mean.
    Features are ``[ranks, 0 where missing | 1 where given, else 0 | triangular functions of the ranks]``,
    ``[N, 2 A + 17 B]``, attributes in alphabetic order; the last part is for those B that many entities have, see
    attribute_values, and 0 where missing. An entity is present if it has any attribute that was kept.

    Args:
      path: see read_numeric_rows; entities by id or by name.
      entities: names by id.
      min_rows: attributes given for fewer entities are dropped, unless that would drop all of them.
      notify: told in one line of rows of entities that the graph lacks, which are left out, and of columns of words.
      bad: see read_numeric_rows.

    Raises:
      UserError: see read_numeric_rows; or no row belongs to an entity of the graph, or far more cells than values.
    """
    rows = [row for row in read_numeric_rows(path, notify, bad) if row.values]
    find = entity_finder(entities)
    places = [find(row.key) for row in rows]
    missing = [(row.line, row.key) for row, place in zip(rows, places, strict=True) if place is None]
    tell_left_out(path, "rows", missing, len(rows), notify)
    rows = [row for row, place in zip(rows, places, strict=True) if place is not None]
    found = [place for place in places if place is not None]
    return attribute_modality([row.values for row in rows], found, len(entities), str(path), min_rows)


def attribute_modality(
    rows: Sequence[Sequence[tuple[str, float]]], found: Sequence[int], height: int, where: str, min_rows: int = 5
) -> Modality:
    """The modality ``numeric`` from rows of pairs (attribute, number) and the entity of each, of N = ``height``.

    See numeric_modality; ``where`` is for messages.
    """
    # Not an array of names: it would be as wide as the longest.
    names, values = zip(*(pair for row in rows for pair in row), strict=True)
    position_of = {name: position for position, name in enumerate(sorted(set(names)))}
    column = np.array([position_of[name] for name in names])
    owner = np.repeat(np.array(found), list(map(len, rows)))
    # A cell is an attribute of an entity. Only those that are given are held: all would be N times A.
    cells, cell = np.unique(column * height + owner, return_inverse=True)
    means = np.bincount(cell, weights=values) / np.bincount(cell)
    attribute, entity = np.divmod(cells, height)
    counts = np.bincount(attribute)
    kept = np.flatnonzero(counts >= min_rows) if (counts >= min_rows).any() else np.arange(len(counts))
    ordered = sorted(position_of)
    # Cells are in the order of attributes.
    cells_of = [slice(*np.searchsorted(attribute, (index, index + 1))) for index in kept]
    attributes = {ordered[index]: np.sort(means[own]) for index, own in zip(kept, cells_of, strict=True)}
    columns, width = triangle_columns(attributes), width_with_triangles(attributes)
    if width * height > 2 * max(_CELLS, _LEAST_SHARE * len(cells)):
        raise UserError(
            f"{where}: {len(kept):,} attributes of {height:,} entities would take {width * height:,} cells for "
            f"{len(cells):,} values; leave out attributes that few entities have"
        )
    features = np.zeros((height, width), np.float32)
    for position, (own, among) in enumerate(zip(cells_of, attributes.values(), strict=True)):
        ranks = quantile(means[own], among)
        features[entity[own], position], features[entity[own], len(kept) + position] = ranks, 1
        if position in columns:
            features[entity[own], columns[position]] = triangles(ranks)
    modality = make_modality("numeric", features, features[:, len(kept) : 2 * len(kept)].any(1), RANKS)
    return dataclasses.replace(modality, attributes=attributes)
