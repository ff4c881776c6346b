"""How modalities are weighed: by what entities carry, by relation, for chosen entities."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mocme_jax.report.run_measurements import Measured, weights_by_pattern, weights_by_relation


class Part(NamedTuple):
    """A modality's share of a bar."""

    name: str
    share: float
    colour: int


class Bar(NamedTuple):
    """Shares that make up 1, with what they are of."""

    name: str
    note: str
    parts: list[Part]


def bar(name: str, note: str, shares: Mapping[str, float], colours: Mapping[str, int]) -> Bar:
    """A bar of the modalities that have any share."""
    return Bar(name, note, [Part(key, float(share), colours[key]) for key, share in shares.items() if share > 0])


def pattern_bars(one: Measured, colours: Mapping[str, int]) -> list[Bar]:
    """Mean weights by what entities carry, the most frequent pattern first."""
    found = []
    for name, count, row in weights_by_pattern(one.weights, one.patterns):
        note = f"{count:,} {'entity' if count == 1 else 'entities'}"
        found.append(bar(name, note, dict(zip(one.modalities, row.tolist(), strict=True)), colours))
    return found


def relation_bars(one: Measured, colours: Mapping[str, int]) -> list[tuple[str, int, list[Bar]]]:
    """Relation, training triples, and mean weights of its heads and of its tails; the most frequent first."""
    graph = one.model.graph
    train = np.asarray(graph.train)
    rows = weights_by_relation(one.weights, train, len(graph.relations))
    counts = np.bincount(train[:, 1], minlength=len(graph.relations))
    found = []
    for index in np.argsort(-counts, kind="stable").tolist():
        if counts[index]:
            ends = [dict(zip(one.modalities, row.tolist(), strict=True)) for row in rows[index]]
            bars = [bar(word, "", end, colours) for word, end in zip(("heads", "tails"), ends, strict=True)]
            found.append((one.model.relations.readable[index], int(counts[index]), bars))
    return found
