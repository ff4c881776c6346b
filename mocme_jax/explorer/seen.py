"""What the explorer's pages tell of a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mocme_jax.serving.trained_model import TrainedModel

MOST_FOUND = 40
MOST_FACTS = 60
MOST_KNOWN = 12
ANSWERS = 10


def found(model: TrainedModel, words: str) -> list[int]:
    """Ids of entities whose name holds the words, whatever the case: the whole name first, then beginnings.

    Names of one kind stand in the order of their length, so that the plainest comes first.
    """
    words = " ".join(words.split()).casefold()
    if not words:
        return []
    ranked = []
    for index, (label, name) in enumerate(zip(model.entities.readable, model.entities.names, strict=True)):
        places = [place for text in (label, name) if (place := text.casefold().find(words)) >= 0]
        if places:
            whole = words in (label.casefold(), name.casefold())
            ranked.append((not whole, min(places) > 0, len(label), index))
    return [index for *_, index in sorted(ranked)[:MOST_FOUND]]


def most_known(model: TrainedModel) -> list[int]:
    """Ids of the entities with the most training triples."""
    degree = np.bincount(np.asarray(model.graph.train)[:, [0, 2]].ravel(), minlength=len(model.entities))
    return np.argsort(-degree, kind="stable")[:MOST_KNOWN].tolist()


def entity(model: TrainedModel, index: int) -> dict[str, Any]:
    """What is known of an entity: what it carries, and its triples as ``direction, relation, other end, split``."""
    facts = []
    for split, triples in model.served.facts.splits.items():
        triples = np.asarray(triples)
        rows = triples[(triples[:, [0, 2]] == index).any(axis=1)][: MOST_FACTS + 1]
        facts += [
            {"head": int(head), "relation": int(relation), "tail": int(tail), "split": split}
            for head, relation, tail in rows.tolist()
        ]
    added = index >= len(model.graph.entities)
    present = np.asarray(model.served.inputs.present[index]).tolist()
    return {
        "id": index,
        "label": model.entities.readable[index],
        "name": model.entities.names[index],
        "added": added,
        "carries": [name for name, has in zip(model.modalities[1:], present[1:], strict=True) if has],
        "facts": facts[:MOST_FACTS],
        "more_facts": len(facts) > MOST_FACTS,
    }


def askable(model: TrainedModel, index: int) -> dict[str, list[int]]:
    """Relations of which an entity is already a head or a tail first, then the others; ids, for each way to ask."""
    train, every = np.asarray(model.graph.train), range(len(model.relations))
    uses = {
        way: np.bincount(train[train[:, column] == index, 1], minlength=len(model.relations))
        for way, column in (("tail", 0), ("head", 2))
    }
    return {
        way: sorted(every, key=lambda r: (-int(counts[r]), model.relations.readable[r])) for way, counts in uses.items()
    }


def answers(model: TrainedModel, entity: int, relation: int, way: str) -> list[dict[str, Any]]:
    """The most probable answers to a query for its ``tail`` or its ``head``."""
    asked = {"head": entity} if way == "tail" else {"tail": entity}
    return [
        dataclasses.asdict(answer)
        | {"triple": (entity, relation, answer.id) if way == "tail" else (answer.id, relation, entity)}
        for answer in model.complete(**asked, relation=relation, k=ANSWERS)
    ]


def reasons(model: TrainedModel, triple: Sequence[int]) -> dict[str, Any]:
    """Why a triple has its score; the parts as signed bars, the longest of width 1."""
    told = model.explain(tuple(map(int, triple)), nearest=5)
    parts = {name: told.score - score for name, score in told.without.items()} | told.additions
    longest = max((abs(value) for value in parts.values()), default=0) or 1
    return {
        "score": told.score,
        "parts": [
            {"name": name, "value": value, "share": abs(value) / longest}
            for name, value in sorted(parts.items(), key=lambda pair: -abs(pair[1]))
        ],
        "information": told.information,
        "nearest": told.nearest,
    }
