"""A graph split into some held-out entities with all their triples, and the rest, for cold-start studies."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mocme_jax.data.features.feature_writer import write_features
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality


class HeldOut(NamedTuple):
    """A graph split in two.

    Attributes:
      rest: the graph of the other entities, with new ids.
      ids: int64 ``[H]``, the ids of the held-out entities in the whole graph.
      triples: int32 ``[T, 3]``, every triple of any split with a held-out entity, once. Ids are those of ``rest``, then
        the held-out entities in the order of ``ids``.
      modalities: the features of the held-out entities.
    """

    rest: KnowledgeGraph
    ids: np.ndarray
    triples: np.ndarray
    modalities: tuple[Modality, ...]


def hold_out(graph: KnowledgeGraph, share: float, seed: int) -> HeldOut:
    """Hold out a random share of the entities that have a triple, with all their triples."""
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
    """Reveal some of the held-out triples, drawn at random.

    Args:
      held: the split graph.
      most: the number of triples to reveal per entity, or as many as it has.
      seed: the seed of the choice.

    Returns:
      The revealed triples int32 ``[G, 3]``, each with one held-out entity, and what is still held out.
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
    """Write a graph in OpenKE layout with one ``.npy`` per modality, as ``load_graph`` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"entity": graph.entities, "relation": graph.relations}
    parts = {kind: [f"{name}\t{index}\n" for index, name in enumerate(some)] for kind, some in names.items()}
    for split, triples in graph.splits.items():
        parts[split] = [f"{head} {tail} {relation}\n" for head, relation, tail in triples.tolist()]
    for part, lines in parts.items():
        (folder / f"{part}2id.txt").write_text(f"{len(lines)}\n" + "".join(lines), encoding="utf-8")
    for modality in graph.modalities:
        write_features(folder / f"{modality.name}.npy", modality, graph.entities)
