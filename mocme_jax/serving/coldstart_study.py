"""The cold-start study: entities that were held out with all their triples, completed from their features alone.

A query has a held-out entity at one end at least. *About* means that it is the known entity of the query, *for* that it
is the gold answer. Ranks are filtered by every triple of the graph, and ties count half.

The baselines know the training triples and the similarity of entities: an entity is linked to what its neighbours are
linked to, weighted by similarity. ``nearest`` has one neighbour, by the cosine of all features. ``mean of <modality>``
has the ten nearest by one modality. ``random`` knows nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mocme_jax.data.features.similarity import NEIGHBOURS, cosines, nearest
from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.data.graph.known_tails import KnownTails, known_tails, reciprocal
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.evaluation.metrics import ranking_metrics
from mocme_jax.parallel.mesh import Mapper
from mocme_jax.serving.completion import encoded_vectors
from mocme_jax.serving.run_loading import load
from mocme_jax.serving.trained_model import TrainedModel
from mocme_jax.training.checkpoints.run_folder import write_json
from mocme_jax.training.logs.progress import make_console, results_table
from mocme_jax.training.logs.run_results import read_results, scores_of
from mocme_jax.training.run import train_and_evaluate
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import with_fields

FILE = "coldstart.json"


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


def study(config: ConfigDict, workdir: Path, *, share: float, held_seed: int, given: int = 0) -> dict:
    """Hold out entities, train on the rest, complete the held-out entities, and write ``coldstart.json``.

    Args:
      config: the config of the training, which also names the graph.
      workdir: the folder for ``graph/``, the rest of the graph, and ``run/``, the training, which resumes if it was
        stopped.
      share: the share of the entities to hold out.
      held_seed: the seed of the choice.
      given: the maximum number of triples of each held-out entity that the model is given. The others are the queries.
    """
    console = make_console()
    dataset = builders.load_dataset(config, notify=console.print)
    # The released splits, because a dev split taken from train would be held out twice.
    graph = dataset.graph.replace(**dict(zip(dataset.graph.splits, dataset.known, strict=True)))
    held = hold_out(graph, share, held_seed)
    counts = f"{len(held.ids):,} of {len(graph.entities):,} entities held out, with {len(held.triples):,} triples"
    console.print(f"{graph.name}: {counts}")
    folder = Path(workdir) / "graph"
    held.rest.save(folder)
    # By name, so that files of an earlier study in the folder are not used.
    modalities = tuple(modality.name for modality in held.modalities) or ("structure",)
    places = {"data.name": graph.name, "data.dir": str(folder), "data.features_dir": None}
    config = with_fields(config, places | {"data.modalities": modalities})
    train_and_evaluate(config, Path(workdir) / "run")
    model = load(Path(workdir) / "run", notify=console.print)
    names = [graph.entities[index] for index in held.ids]
    features = {m.name: np.where(m.present[:, None], m.features, np.nan) for m in held.modalities}
    told, held = give(held, given, held_seed)
    grown = model.add_entities(names, features, told.tolist())
    known = [held.rest.train, held.rest.valid, held.rest.test, told, held.triples]
    tails = known_tails(known, len(grown.entities), len(grown.relations))
    asked = reciprocal(held.triples, len(grown.relations))
    ranks = {"MoCME": model_ranks(grown, held, known)}
    if given:
        unfitted = model.add_entities(names, features, told.tolist(), fit=False)
        ranks["MoCME, structure not fitted"] = model_ranks(unfitted, held, known)
    ranks |= baseline_ranks(held, tails, asked, held_seed)
    about = asked[:, 0] >= len(held.rest.entities)
    groups = {"all": np.ones(len(asked), bool), "about": about, "for": asked[:, 2] >= len(held.rest.entities)}
    rest = scores_of(read_results(Path(workdir) / "run"))
    results = {
        "graph": graph.name,
        "held_out": len(held.ids),
        "triples": len(held.triples),
        "share": share,
        "seed": held_seed,
        "given": given,
        "modalities": {m.name: float(m.present.mean()) for m in held.modalities},
        "rest": {"test_mrr": rest["test"]["mrr"] if "test" in rest else None},
        "ranks": {
            name: {group: ranking_metrics(row[chosen]) for group, chosen in groups.items()}
            for name, row in ranks.items()
        },
    }
    write_json(Path(workdir) / FILE, results)
    rows = [
        {"model": name}
        | {f"MRR {group}": metrics["mrr"] for group, metrics in one.items()}
        | {"Hits@10": one["all"]["hits@10"]}
        for name, one in results["ranks"].items()
    ]
    results_table(rows, title=f"{graph.name}, cold start: {len(asked):,} queries", console=console)
    counts = {name: int(chosen.sum()) for name, chosen in groups.items()}
    console.print(
        f"about: the {counts['about']:,} queries that contain a held-out entity; for: the {counts['for']:,} queries "
        "whose gold answer is a held-out entity; a query may be both"
    )
    return results


def model_ranks(grown: TrainedModel, held: HeldOut, known: Sequence[np.ndarray]) -> np.ndarray:
    """Compute realistic filtered ranks float64 ``[2T]`` of the held-out triples with the ranker of the evaluation."""
    served, mapper = grown.served, Mapper("none", 1)
    graph = held.rest.replace(entities=grown.entities.names, test=held.triples)
    evaluator = Evaluator(served.model, graph, known, mapper=mapper, additions=served.facts.additions)
    return evaluator.ranks(served.params.model, encoded_vectors(served, mapper), "test")


def baseline_ranks(held: HeldOut, known: KnownTails, asked: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Compute ranks float64 ``[2T]`` of queries ``[2T, 3]`` with each baseline; see the module."""
    old, new = standardised(held)
    rng = np.random.default_rng(seed)
    found = {"random": neighbour_ranks(held, known, asked, None, rng)}
    if not old:
        return found
    joined = [np.concatenate(list(part.values()), axis=1) for part in (old, new)]
    found["nearest"] = neighbour_ranks(held, known, asked, nearest(cosines(*joined), 1), rng)
    for name in old:
        near = nearest(cosines(old[name], new[name]), NEIGHBOURS)
        found[f"mean of {name}"] = neighbour_ranks(held, known, asked, near, rng)
    return found


def standardised(held: HeldOut) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return features by modality of the rest and of the held-out entities, on the rest's scale; 0 where missing."""
    pairs = list(zip(held.rest.modalities, held.modalities, strict=True))
    old = {rest.name: standardise(rest).features for rest, _ in pairs}
    return old, {rest.name: standardise(own, rest.scale).features for rest, own in pairs}


def neighbour_ranks(
    held: HeldOut,
    known: KnownTails,
    asked: np.ndarray,
    near: tuple[np.ndarray, np.ndarray] | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Compute realistic filtered ranks of queries if a new entity is linked to what its neighbours are linked to.

    Args:
      held: the split graph.
      known: every known answer, for filtering.
      asked: int ``[Q, 3]``, entity, relation in [0, 2R), answer.
      near: from ``nearest``; None draws scores at random from ``rng``.
    """
    old = len(held.rest.entities)
    total = old + len(held.ids)
    train = known_tails([held.rest.train], total, len(held.rest.relations))
    starts, counts = known.lookup(asked)
    train_starts, train_counts = train.lookup(asked)
    ranks = np.empty(len(asked))
    for place, (entity, relation, answer) in enumerate(asked.tolist()):
        scores = rng.random(total) if near is None else np.zeros(total)
        if near is not None and entity >= old:
            # Its neighbours' answers to the same query.
            ids, weights = near[0][entity - old], near[1][entity - old]
            rows, tails = train.pairs(np.stack([ids, np.full(len(ids), relation)], axis=1))
            np.add.at(scores, tails, weights[rows])
        elif near is not None:
            # The score of a new entity is the weight of its neighbours among the answers.
            answers = train.tails[train_starts[place] : train_starts[place] + train_counts[place]]
            scores[old:] = (np.isin(near[0], answers) * near[1]).sum(axis=1)
        gold = scores[answer]
        scores[known.tails[starts[place] : starts[place] + counts[place]]] = -np.inf
        ranks[place] = 1 + (scores > gold).sum() + (scores == gold).sum() / 2
    return ranks
