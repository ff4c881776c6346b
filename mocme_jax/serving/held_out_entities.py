"""A graph without some of its entities, and those entities with all their triples: to study the cold start."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mocme_jax.data.features.feature_writer import write_features
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality


class HeldOut(NamedTuple):
    """A graph cut in two.

    Attributes:
      rest: the graph of the other entities; ids count anew.
      ids: int64 ``[H]``, the entities that were held out, in the whole graph.
      triples: int32 ``[T, 3]``, every triple of any split with one of them, once. Ids are those of the rest, and then
        the held-out entities in the order of ``ids``.
      modalities: what they carry.
    """

    rest: KnowledgeGraph
    ids: np.ndarray
    triples: np.ndarray
    modalities: tuple[Modality, ...]


def hold_out(graph: KnowledgeGraph, share: float, seed: int) -> HeldOut:
    """Holds out so many of the entities that have a triple, at random, with all their triples."""
    everything = np.concatenate(list(graph.splits.values()))
    candidates = np.unique(everything[:, [0, 2]])
    count = max(1, round(share * len(candidates)))
    ids = np.sort(np.random.default_rng(seed).choice(candidates, count, replace=False))
    out = np.zeros(len(graph.entities), bool)
    out[ids] = True
    kept = np.flatnonzero(~out)
    place = np.empty(len(out), np.int32)
    place[kept], place[ids] = np.arange(len(kept)), len(kept) + np.arange(len(ids))

    def moved(triples: np.ndarray) -> np.ndarray:
        return np.stack([place[triples[:, 0]], triples[:, 1], place[triples[:, 2]]], axis=1).astype(np.int32)

    touched = {name: out[triples[:, [0, 2]]].any(axis=1) for name, triples in graph.splits.items()}
    splits = {name: moved(triples[~touched[name]]) for name, triples in graph.splits.items()}

    def part(modality: Modality, rows: np.ndarray) -> Modality:
        return Modality(modality.name, modality.features[rows], modality.present[rows])

    rest = graph.replace(
        entities=[graph.entities[index] for index in kept],
        modalities=tuple(part(modality, kept) for modality in graph.modalities),
        **splits,
    )
    held = [triples[touched[name]] for name, triples in graph.splits.items()]
    triples = np.unique(moved(np.concatenate(held)), axis=0)
    return HeldOut(rest, ids, triples, tuple(part(modality, ids) for modality in graph.modalities))


def give(held: HeldOut, most: int, seed: int) -> tuple[np.ndarray, HeldOut]:
    """Tells some of the held-out triples, drawn at random: ``most`` of each entity, or as many as it has.

    Returns:
      The told triples int32 ``[G, 3]``, each of one held-out entity, and what is held out still.
    """
    old = len(held.rest.entities)
    order = np.random.default_rng(seed).permutation(len(held.triples))
    ends = held.triples[order][:, [0, 2]]
    own = ends.max(axis=1)  # ids of held-out entities are behind those of the rest
    alone = (ends >= old).sum(axis=1) == 1
    told = np.zeros(len(order), bool)
    for entity in np.unique(own[alone]):
        told[np.flatnonzero(alone & (own == entity))[:most]] = True
    return held.triples[order[told]], held._replace(triples=held.triples[np.sort(order[~told])])


def write_graph(folder: Path, graph: KnowledgeGraph) -> None:
    """Writes a graph in the OpenKE layout with a ``.npy`` of each modality, as ``load_graph`` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"entity": graph.entities, "relation": graph.relations}
    parts = {kind: [f"{name}\t{index}\n" for index, name in enumerate(some)] for kind, some in names.items()}
    for split, triples in graph.splits.items():
        parts[split] = [f"{head} {tail} {relation}\n" for head, relation, tail in triples.tolist()]
    for part, lines in parts.items():
        (folder / f"{part}2id.txt").write_text(f"{len(lines)}\n" + "".join(lines), encoding="utf-8")
    for modality in graph.modalities:
        write_features(folder / f"{modality.name}.npy", modality, graph.entities)
