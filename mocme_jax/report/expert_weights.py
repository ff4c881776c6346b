"""How experts are weighed: by what entities carry, by relation, for chosen entities."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mocme_jax.report.run_measurements import Measured, shares_by_pattern

ASKED = ("heads, asked for their tails", "tails, asked for their heads")
"""The two ends of a relation, in the order of ``Weights.relation``."""


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


def pattern_bars(one: Measured, colours: Mapping[str, int]) -> list[Bar]:
    """Mean shares by what entities carry, the most frequent pattern first."""
    found = []
    for name, count, row in shares_by_pattern(one.weights.entity, one.patterns):
        note = f"{count:,} {'entity' if count == 1 else 'entities'}"
        found.append(bar(name, note, one.named(row), colours))
    return found


def relation_bars(one: Measured, colours: Mapping[str, int]) -> list[tuple[str, int, list[Bar]]]:
    """Relation, training triples, and the mean shares of both its ends; the most frequent first."""
    graph = one.model.graph
    counts = np.bincount(np.asarray(graph.train)[:, 1], minlength=len(graph.relations))
    found = []
    for index in np.argsort(-counts, kind="stable").tolist():
        if counts[index]:
            ends = zip(ASKED, one.weights.relation[index], strict=True)
            bars = [bar(word, "", one.named(row), colours) for word, row in ends]
            found.append((one.model.relations.readable[index], int(counts[index]), bars))
    return found
