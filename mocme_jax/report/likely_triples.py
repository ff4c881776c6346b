"""The most probable new triples, of as many relations as can be asked about while somebody waits."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mocme_jax.countdown import Countdown
from mocme_jax.serving.new_triples import new_triples
from mocme_jax.serving.trained_model import TrainedModel

COUNT = 20
MOST_QUERIES = 50_000
"""Queries that are asked for the page."""


def relations_within(train: np.ndarray, entities: int, relations: int, most: int = MOST_QUERIES) -> np.ndarray:
    """The most frequent relations that take at most ``most`` queries, two for each entity; ids ascending, or none."""
    frequent = np.argsort(-np.bincount(train[:, 1], minlength=relations), kind="stable")
    return np.sort(frequent[: most // (2 * entities)])


def likely_triples(
    model: TrainedModel, notify: Callable[[str], None] | None, most: int = MOST_QUERIES
) -> dict[str, Any]:
    """``rows`` (head, relation, tail, chance), best first, of ``asked`` relations out of ``relations``."""
    names, relations = model.entities.readable, model.relations.readable
    chosen = relations_within(np.asarray(model.graph.train), len(names), len(relations), most)
    rows = []
    if len(chosen):
        told = Countdown("queries for new triples", notify or (lambda line: None))
        found = new_triples(model.served, model.calibration, COUNT, relations=chosen.tolist(), told=told)
        for (head, relation, tail), chance in zip(found.triples.tolist(), found.chance.tolist(), strict=True):
            rows.append((names[head], relations[relation], names[tail], chance))
    rows.sort(key=lambda row: -row[3])
    return {"rows": rows, "asked": len(chosen), "relations": len(relations)}
