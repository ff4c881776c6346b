"""Rows of a feature matrix that were filled in for entities without the modality.

Published feature matrices have a row for every entity and mark none as missing. The missing ones hold the mean of the
others, zeros, or one random row. (A random row of its own for each entity cannot be told from a real one.)
"""

from typing import NamedTuple

import numpy as np

NARROWEST = 16
"""Narrower matrices are not searched: in few columns, real rows are constant, equal or near the mean as well."""
NEAR = 1e-3
"""A row is the mean if it is nearer to it than this share of the median distance. Saved as float16, a mean is."""
FEWEST, TIMES = 20, 5
"""A row is filler if it occurs at least this often, and this many times as often as the next most frequent row.

Half of the other rows must be distinct, too. Real rows repeat as well: 343 entities of DB15K are described as "American
actor", and 218 as "American actress".
"""
_BLOCK = 1024


class Filled(NamedTuple):
    """Bool ``[N]`` each, and no row in two of them: what a filled-in row holds."""

    constant: np.ndarray
    mean: np.ndarray
    repeated: np.ndarray

    @property
    def any(self) -> np.ndarray:
        """Bool ``[N]``, whether the row was filled in."""
        return self.constant | self.mean | self.repeated


def find_filled(rows: np.ndarray) -> Filled:
    """Finds the rows ``[N, d_m]`` that are constant, the mean of the others, or one row many times over."""
    constant, distances = np.zeros(len(rows), bool), np.zeros(len(rows))
    if len(rows) < 2 or rows.shape[1] < NARROWEST:
        return Filled(constant, constant, constant)
    blocks = [slice(first, first + _BLOCK) for first in range(0, len(rows), _BLOCK)]
    total = np.zeros(rows.shape[1])
    # What is not finite is somebody else's to report.
    with np.errstate(invalid="ignore", over="ignore"):
        for block in blocks:
            constant[block] = (rows[block] == rows[block, :1]).all(axis=1)
            total += rows[block][~constant[block]].sum(axis=0, dtype=np.float64)
        # Filling in the mean has not moved it.
        varied = ~constant
        mean = total / max(1, varied.sum())
        for block in blocks:
            distances[block] = ((rows[block] - mean) ** 2).sum(axis=1)
    first, group, counts = equal_rows(rows)
    usual = distances[first[varied[first]]]
    near = varied & (distances < NEAR**2 * np.median(usual)) if len(usual) else constant & False
    order = np.argsort(counts)
    most, second = counts[order[-1]], counts[order[-2]] if len(counts) > 1 else 0
    # Where most of the other rows repeat too, as one-hot rows do, the most frequent row is a frequent value.
    distinct = 2 * (len(counts) - 1) >= len(rows) - most
    # All rows with NaN are one group.
    finite = np.isfinite(rows[first[order[-1]]]).all()
    filler = most >= max(FEWEST, TIMES * second) and distinct and finite
    return Filled(constant, near, (group == order[-1]) & filler & ~constant & ~near)


def equal_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds groups of equal rows: the first row of each, the group of each row (int ``[N]``), the size of each."""
    return np.unique(projections(rows), return_index=True, return_inverse=True, return_counts=True)[1:]


def projections(rows: np.ndarray) -> np.ndarray:
    """A number for each row, float64 ``[N]``: equal rows have equal numbers, and different ones hardly ever do."""
    direction = np.random.default_rng(0).standard_normal(rows.shape[1])
    return np.einsum("ij,j->i", rows, direction, dtype=np.float64)
