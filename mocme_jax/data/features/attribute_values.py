"""Numeric attributes of a graph, kept so that a new entity's numbers can be ranked among them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.errors import UserError

Attributes = Mapping[str, np.ndarray]
"""By attribute, in the order of its columns: the values of the entities that have it, float64, ascending."""

KNOTS = np.linspace(-1, 1, 17)
"""The ranks at which the triangular functions are 1; see ``triangles``."""

MANY = 50
"""The least number of entities of an attribute with triangular functions. It also has at least three numbers."""

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

    Each function is 1 at its knot, falls linearly, and is 0 from the next knots on. Two encodings have a positive dot
    product only if the ranks differ by less than twice the distance of two knots.
    """
    return np.maximum(0, 1 - np.abs(ranks[:, None] - KNOTS) / (KNOTS[1] - KNOTS[0]))


def triangle_columns(attributes: Attributes) -> dict[int, slice]:
    """Return the columns of triangular functions, by the position of the attribute; see ``MANY``.

    The features have 2 A columns before them and none after them.
    """
    values = enumerate(attributes.values())
    # The values are sorted.
    chosen = [place for place, one in values if len(one) >= MANY and np.count_nonzero(np.diff(one)) >= 2]
    starts = (2 * len(attributes) + len(KNOTS) * number for number in range(len(chosen)))
    return {place: slice(start, start + len(KNOTS)) for place, start in zip(chosen, starts, strict=True)}


def width_with_triangles(attributes: Attributes) -> int:
    """Return the width of numeric features."""
    return 2 * len(attributes) + len(KNOTS) * len(triangle_columns(attributes))


def attribute_rows(attributes: Attributes, given: Sequence[Mapping[str, Any] | None], width: int) -> np.ndarray:
    """Features float32 ``[n, width]`` of n entities, as numeric_modality makes them; see there.

    Args:
      attributes: the graph's.
      width: the width of the graph's features. It is 2 A if they have no triangular functions, as in files of 0.4.0.
      given: of each entity its numbers by attribute; None for an entity without any. A missing number is None or NaN.
        A word is 1 for the attribute ``attribute=word`` and 0 for the attribute's other words, as in a table.

    Raises:
      UserError: an attribute that the graph lacks, or a value that is no finite number.
    """
    names = list(attributes)
    place = {name: index for index, name in enumerate(names)}
    rows = np.zeros((len(given), width), np.float32)
    columns = triangle_columns(attributes) if width > 2 * len(names) else {}
    for row, numbers in zip(rows, given, strict=True):
        for name, value in _as_numbers(numbers or {}, names):
            if name not in place:
                raise UserError(f"features numeric: the graph has no attribute {name[:60]!r}; it has {_some(names)}")
            column = place[name]
            rank = quantile(np.array([value]), attributes[name])
            row[column], row[len(names) + column] = rank[0], 1
            if column in columns:
                row[columns[column]] = triangles(rank)[0]
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
    if width not in (2 * len(attributes), width_with_triangles(attributes)):
        raise UserError(f"{path}: has {width} columns, which does not match its attributes; make the file again")
    return attributes
