"""Numeric attributes of a graph, kept so that a new entity's numbers can be ranked among them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.errors import UserError

Attributes = Mapping[str, np.ndarray]
"""By attribute, in the order of its columns: the values of the entities that have it, float64, ascending."""

KNOTS = np.linspace(-1, 1, 17)
"""Where the triangular functions of a rank have their peaks, see ``triangles``."""

MANY = 50
"""An attribute that so many entities have, with three different numbers at least, is also encoded by ``triangles``."""

ARRAYS = ("attributes", "values", "counts")
"""What a file holds of them: A names, all values one attribute after the other, and how many are of each."""


def quantile(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where ``values [n]`` stand among the ascending ``among [m]``: from -1, below all, to 1, above all.

    This is twice the mean rank less one, over m, less one: what an entity of the graph with the same number has.
    """
    below, upto = np.searchsorted(among, values, "left"), np.searchsorted(among, values, "right")
    return (below + upto) / len(among) - 1


def triangles(ranks: np.ndarray) -> np.ndarray:
    """Encode ranks ``[n]`` in [-1, 1] by triangular functions (linear B-splines), ``[n, 17]``; each row sums to 1.

    A function is 1 at its knot and 0 from the next knots on. So the dot product of two encodings is large for similar
    numbers only, while that of two ranks is also large for two large numbers that differ.
    """
    return np.maximum(0, 1 - np.abs(ranks[:, None] - KNOTS) / (KNOTS[1] - KNOTS[0]))


def encoded_by_triangles(attributes: Attributes) -> list[int]:
    """Return the positions of the attributes with columns of triangular functions, see ``MANY``."""
    values = enumerate(attributes.values())
    # The values are sorted.
    return [place for place, one in values if len(one) >= MANY and np.count_nonzero(np.diff(one)) >= 2]


def attribute_rows(attributes: Attributes, given: Sequence[Mapping[str, Any] | None], width: int) -> np.ndarray:
    """Features float32 ``[n, width]`` of n entities, as numeric_modality makes them; see there.

    Args:
      attributes: the graph's.
      width: that of the graph's features. In files of version 0.4.0 it is 2A, without triangular functions.
      given: of each entity its numbers by attribute; None for an entity without any. A missing number is None or NaN.
        A word is 1 for the attribute ``attribute=word`` and 0 for the attribute's other words, as in a table.

    Raises:
      UserError: an attribute that the graph lacks, or a value that is no finite number.
    """
    names = list(attributes)
    place = {name: index for index, name in enumerate(names)}
    rows = np.zeros((len(given), width), np.float32)
    finer = encoded_by_triangles(attributes) if width > 2 * len(names) else []
    start = {column: 2 * len(names) + index * len(KNOTS) for index, column in enumerate(finer)}
    for row, numbers in zip(rows, given, strict=True):
        for name, value in _as_numbers(numbers or {}, names):
            if name not in place:
                raise UserError(f"features numeric: the graph has no attribute {name[:60]!r}; it has {_some(names)}")
            column = place[name]
            rank = quantile(np.array([value]), attributes[name])
            row[column], row[len(names) + column] = rank[0], 1
            if column in start:
                row[start[column] : start[column] + len(KNOTS)] = triangles(rank)[0]
    return rows


def _as_numbers(numbers: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, float]]:
    pairs: list[tuple[str, float]] = []
    for key, value in numbers.items():
        name = str(key)
        # NaN differs from itself.
        if value is None or value != value:
            continue
        if isinstance(value, str):
            words = [other for other in names if other.startswith(f"{name}=")]
            pairs += [(other, float(other == f"{name}={value}")) for other in words] or [(f"{name}={value}", 1.0)]
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = np.inf
        if not np.isfinite(number):
            raise UserError(f"features numeric: {name[:60]!r} is {str(value)[:40]!r}, which is not a finite number")
        pairs.append((name, number))
    return pairs


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def to_arrays(attributes: Attributes) -> dict[str, np.ndarray]:
    """What is written into a file, see ARRAYS."""
    return {
        "attributes": np.array(list(attributes)),
        "values": np.concatenate(list(attributes.values())),
        "counts": np.array([len(values) for values in attributes.values()], np.int64),
    }


def from_arrays(path: Path, arrays: Mapping[str, np.ndarray], width: int) -> Attributes:
    """What to_arrays wrote, of a file of unknown origin.

    Args:
      path: for messages.
      arrays: ARRAYS.
      width: of the features, see ``attribute_rows``.

    Raises:
      UserError: they do not belong together.
    """
    names, values, counts = (arrays[name] for name in ARRAYS)
    whole = (
        names.shape == counts.shape
        and names.ndim == 1
        and names.dtype.kind == "U"
        and counts.dtype.kind in "iu"
        and values.dtype == np.float64
        and values.ndim == 1
        and bool((counts > 0).all())
        and int(counts.astype(object).sum()) == len(values)
        and bool(np.isfinite(values).all())
    )
    if not whole or len(set(names.tolist())) < len(names):
        raise UserError(f"{path}: attributes, values and counts do not match; make the file again")
    parts = np.split(values, np.cumsum(counts.astype(np.int64))[:-1])
    if any((np.diff(part) < 0).any() for part in parts):
        raise UserError(f"{path}: the values of an attribute are not in ascending order; make the file again")
    attributes = dict(zip(map(str, names.tolist()), parts, strict=True))
    plain = 2 * len(attributes)
    if width not in (plain, plain + len(KNOTS) * len(encoded_by_triangles(attributes))):
        raise UserError(f"{path}: has {width} columns, which does not match its attributes; make the file again")
    return attributes
