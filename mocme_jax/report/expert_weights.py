"""How experts are weighed: by what entities carry, and by relation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mocme_jax.report.run_measurements import Measured, shares_by_pattern

ASKED = ("{} ?", "? {}")
"""How the queries of a relation are written, in the order of ``Weights.relation``: for tails, and for heads."""
ALIKE = 0.05
"""Shares that differ by no more than this are drawn once."""
_NAMED = 4
"""Names that a bar lists."""


class Part(NamedTuple):
    """An expert's share of a bar."""

    name: str
    share: float
    colour: int


class Bar(NamedTuple):
    """Shares that make up 1, with what they are of."""

    name: str
    note: str
    parts: list[Part]


def bar(name: str, note: str, shares: Mapping[str, float], colours: Mapping[str, int]) -> Bar:
    """A bar of the experts that have any share."""
    return Bar(name, note, [Part(key, float(share), colours[key]) for key, share in shares.items() if share > 0])


class Shares(NamedTuple):
    """Mean shares ``[H]`` of ``count`` entities or triples."""

    name: str
    count: int
    mean: np.ndarray


def together(rows: Sequence[Shares]) -> list[Shares]:
    """Rows whose shares are much the same as one: each joins the first before it that is alike.

    The mean is over all that a group holds.
    """
    groups: list[list[Shares]] = []
    for row in rows:
        group = next((one for one in groups if np.abs(one[0].mean - row.mean).max() <= ALIKE), None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return [_joined(group) for group in groups]


def _joined(group: Sequence[Shares]) -> Shares:
    counts = np.array([row.count for row in group])
    mean = np.average([row.mean for row in group], axis=0, weights=counts)
    more = f"; and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
    return Shares("; ".join(row.name for row in group[:_NAMED]) + more, int(counts.sum()), mean)


def pattern_bars(one: Measured, colours: Mapping[str, int]) -> list[Bar]:
    """Mean shares by what entities carry, the most frequent first, with one bar for patterns that are alike."""
    rows = [
        Shares(name.replace("+", ", "), count, mean)
        for name, count, mean in shares_by_pattern(one.entity_shares, one.patterns)
    ]
    return [
        bar(row.name, f"{row.count:,} {'entity' if row.count == 1 else 'entities'}", one.named(row.mean), colours)
        for row in together(rows)
    ]


def relation_bars(one: Measured, colours: Mapping[str, int]) -> list[Bar]:
    """Mean shares by relation and direction, the most frequent first, with one bar for those that are alike."""
    graph = one.model.graph
    counts = np.bincount(np.asarray(graph.train)[:, 1], minlength=len(graph.relations))
    rows = [
        Shares(word.format(one.model.relations.readable[index]), int(counts[index]), mean)
        for index in np.argsort(-counts, kind="stable").tolist()
        if counts[index]
        for word, mean in zip(ASKED, one.relation_shares[index], strict=True)
    ]
    return [bar(row.name, f"{row.count:,} training queries", one.named(row.mean), colours) for row in together(rows)]
