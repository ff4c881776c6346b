"""Explanations of a triple's score: expert weights, the contribution of each modality, and similar training triples.

The contribution of a modality is measured, not read from its weight. The same model encodes both ends again as if they
lacked the modality, and scores the triple again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.completion import Served, added_to_triples, in_batches, score_triples
from mocme_jax.serving.run_model import RunModel
from mocme_jax.training.information import read_information
from mocme_jax.training.logs.run_results import expert_names

# Modalities that add less to a score than this share of it are left out.
LEAST_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class End:
    """The head or the tail of an explained triple.

    Attributes:
      id: the id of the entity.
      label: its readable name.
      weights: each expert's share of the weights of the entity in a query with this relation, by expert name. The
        shares sum to 1.
    """

    id: int
    label: str
    weights: dict[str, float]


@dataclasses.dataclass(frozen=True)
class NearTriple:
    """A training triple that is similar to the explained one.

    Attributes:
      head: readable name.
      relation: readable name.
      tail: readable name.
      similarity: the mean of two cosines: of the heads' encodings and of the tails', in [-1, 1].
    """

    head: str
    relation: str
    tail: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The explanation of a triple's score.

    Attributes:
      triple: ids of head, relation and tail.
      relation: the readable name of the relation.
      head: the head.
      tail: the tail.
      score: the mean of ``asked_for_tail`` and ``asked_for_head``.
      asked_for_tail: the score of the tail in the query (head, relation, ?).
      asked_for_head: the score of the head in the query (?, relation, tail).
      without: for each modality, the score if both ends lacked it.
      information: for each modality, the information in nats that it adds about the answers of this relation on dev.
        Empty if ``mocme evaluate --information`` has not been run, or if dev has no triple of the relation.
      without_any: the score if both ends lacked all modalities.
      additions: what each score addition contributes, by title. All scores above include it.
      nearest: training triples of the same relation, most similar first. If train has no other triple of the relation,
        triples of any relation.
    """

    triple: tuple[int, int, int]
    relation: str
    head: End
    tail: End
    score: float
    asked_for_tail: float
    asked_for_head: float
    without: dict[str, float]
    information: dict[str, float]
    without_any: float
    additions: dict[str, float]
    nearest: list[NearTriple]

    def to_dict(self) -> dict:
        """Return all fields as a dict that JSON can hold."""
        return dataclasses.asdict(self)


def masked_scores(served: Served, triples: np.ndarray) -> np.ndarray:
    """Score triples with some modalities of their ends masked.

    Args:
      triples: int ``[T, 3]``.

    Returns:
      float32 ``[T, M + 2, 2]``. Axis 1: with everything, without each of the M modalities in turn (the structure
      first), and without any. Axis 2: as a tail query and as a head query.
    """
    modalities = 1 + len(served.inputs.features)
    everything = np.ones((1, modalities), bool)
    masks = np.concatenate([everything, ~np.eye(modalities, dtype=bool), ~everything])
    net = served.model, served.params.model

    def score(rows: np.ndarray) -> np.ndarray:
        # Each end is encoded under every mask.
        ids = np.repeat(rows[:, [0, 2]].ravel(), len(masks))
        carried = look_up(served.params.structure, served.inputs, ids, split=False)
        present = carried.present & np.tile(masks, (2 * len(rows), 1))
        encoded = programs.encode_some(*net, carried._replace(present=present))
        parts = [x.reshape(len(rows), 2, len(masks), -1) for x in encoded]
        head, tail = (tuple(x[:, end].reshape(len(rows) * len(masks), -1) for x in parts) for end in (0, 1))
        scores = programs.score_vectors(*net, head, np.repeat(rows[:, 1], len(masks)), tail)
        return scores.reshape(len(rows), len(masks), 2)

    return in_batches(score, np.asarray(triples, np.int32)) + added_to_triples(served, triples)[:, None]


def added_to_score(scores: np.ndarray, modalities: Sequence[str]) -> list[dict[str, float]]:
    """Compute what each modality adds to the score of each triple: the score minus the score without the modality.

    Args:
      scores: ``[T, M + 2]``, one direction of ``masked_scores``.
      modalities: M names.

    Returns:
      For each triple, a dict from modality to contribution, largest absolute value first. A contribution is negative if
      the modality lowers the score. Contributions below ``LEAST_SHARE`` of the largest absolute score are left out.
    """
    scores = scores[:, : 1 + len(modalities)].astype(np.float64)
    adds = scores[:, :1] - scores[:, 1:]
    told = np.abs(adds) >= LEAST_SHARE * np.abs(scores).max(axis=1, keepdims=True)
    order = np.argsort(-np.abs(adds), axis=1, kind="stable")
    return [
        {modalities[m]: float(row[m]) for m in places if shown[m]}
        for row, shown, places in zip(adds, told, order, strict=True)
    ]


def explain_triple(model: RunModel, triple: np.ndarray, nearest: int) -> Explanation:
    """Explain one triple int32 ``[3]``, with ``nearest`` similar training triples."""
    served, modalities = model.served, model.modalities
    head, relation, tail = map(int, triple)
    scores = masked_scores(served, triple[None])[0].astype(np.float64)
    asked = score_triples(served, triple[None])[0].astype(np.float64)
    carried = look_up(served.params.structure, served.inputs, triple[[0, 2]], split=False)
    asked_with = np.array([relation, relation + served.model.num_relations], np.int32)
    weights = programs.expert_shares(served.model, served.params.model, carried, asked_with)
    experts = expert_names(modalities[1:], weights.shape[1])
    measured = read_information(model.workdir, model.saved["position"]).get("relations", {})

    def end(place: int, index: int) -> End:
        shares = dict(zip(experts, np.asarray(weights[place]).tolist(), strict=True))
        return End(index, model.entities.readable[index], shares)

    means = scores.mean(axis=1)
    return Explanation(
        triple=(head, relation, tail),
        relation=model.relations.readable[relation],
        head=end(0, head),
        tail=end(1, tail),
        score=float(asked.mean()),
        asked_for_tail=float(asked[0]),
        asked_for_head=float(asked[1]),
        without=dict(zip(modalities, means[1:-1].tolist(), strict=True)),
        information={name: one["nats"] for name, one in measured.get(model.relations.names[relation], {}).items()},
        without_any=float(means[-1]),
        additions=_additions(served, triple),
        nearest=_nearest_triples(model, triple, nearest),
    )


def _additions(served: Served, triple: np.ndarray) -> dict[str, float]:
    """Return what each score addition adds to the score of a triple ``[3]``, as the mean of both directions."""
    additions, (entity, relation, answer) = served.facts.additions, reciprocal(triple, served.model.num_relations).T
    trained = additions.trained(entity, relation, answer)
    return {one.title: float(np.mean(one.of_facts(relation, answer, trained))) for one in additions.scores}


def _nearest_triples(model: RunModel, triple: np.ndarray, count: int) -> list[NearTriple]:
    served, train = model.served, model.graph.train
    entities, relations = model.entities.readable, model.relations.readable
    rows = np.flatnonzero((train[:, 1] == triple[1]) & (train != triple).any(axis=1))
    if not len(rows):
        rows = np.flatnonzero((train != triple).any(axis=1))
    table = programs.vectors_of(served.model, served.tables.questions)
    cosine = np.asarray(jax.device_get(programs.cosines(table, programs.rows_of(table, triple[[0, 2]]))), np.float64)
    similarity = (cosine[0, train[rows, 0]] + cosine[1, train[rows, 2]]) / 2
    # Repeated training triples are listed once.
    _, first = np.unique(train[rows], axis=0, return_index=True)
    best = first[np.argsort(-similarity[first], kind="stable")[:count]]
    return [
        NearTriple(entities[h], relations[r], entities[t], float(value))
        for (h, r, t), value in zip(train[rows[best]].tolist(), similarity[best].tolist(), strict=True)
    ]
