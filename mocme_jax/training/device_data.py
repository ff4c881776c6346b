"""Functions that convert a graph to the arrays that compiled programs read."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mocme_jax.additions.addition import Bar
from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.data.graph.triple_keys import pieces
from mocme_jax.parallel.device_axis import padded_size
from mocme_jax.parallel.entity_tables import Inputs, inputs_spec
from mocme_jax.parallel.known_answers import KnownAnswers, entity_facts, hub_queries, index_known, known_spec
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper, filled
from mocme_jax.parallel.processes import all_rows, everyone
from mocme_jax.training.train_state import TrainData


def make_inputs(graph: KnowledgeGraph, mapper: Mapper, *, split: bool = False) -> Inputs:
    """Make the encoder's inputs, placed: standardised features, presence masks ``[N, M]`` and evidence."""
    present: Any = presence(graph)
    counts: Any = evidence(graph.train, len(graph.entities))
    rows = mapper.table_rows(len(graph.entities), split) // (mapper.count if split else 1)
    scales = [modality.scale for modality in graph.modalities]

    def share(device: int) -> Inputs:
        """Return a device's rows, the only ones that its process standardises; all of them if they are not split."""
        own = slice(device * rows, (device + 1) * rows)
        parts = [Modality(one.name, one.features[own], one.present[own]) for one in graph.modalities]
        features: Any = tuple(standardise(*pair).features for pair in zip(parts, scales, strict=True))
        return jax.tree.map(lambda array: filled(array, rows), Inputs(features, present[own], counts[own]))

    return mapper.place_shares(share, inputs_spec(True)) if split else mapper.place(share(0), inputs_spec(False))


def evidence(train: np.ndarray, entities: int) -> np.ndarray:
    """Compute log(1 + number of training triples) of N entities, float32 ``[N]``, for triples int ``[T, 3]``."""
    counts = np.zeros(entities, np.int64)
    for piece in pieces(train):
        # A triple from an entity to itself counts once.
        counts += np.bincount(piece[:, 0], minlength=entities)
        counts += np.bincount(piece[piece[:, 0] != piece[:, 2], 2], minlength=entities)
    return np.log1p(counts).astype(np.float32)


def presence(graph: KnowledgeGraph) -> np.ndarray:
    """Return which modalities each entity has: bool ``[N, M]``, the structure first, which all entities have."""
    return np.stack([np.ones(len(graph.entities), bool), *(m.present for m in graph.modalities)], axis=1)


def without(inputs: Inputs, graph: KnowledgeGraph, modality: int, mapper: Mapper, *, split: bool = False) -> Inputs:
    """Return the inputs, placed, as if no entity had one of the M modalities, by its number; 0 is the structure."""
    present: Any = presence(graph)
    present[:, modality] = False
    return inputs._replace(present=mapper.place(present, inputs_spec(split).present))


def make_train_data(
    graph: KnowledgeGraph,
    inputs: Inputs,
    mapper: Mapper,
    *,
    split: bool = False,
    bars: tuple[Bar, ...] = (),
) -> TrainData:
    """Make training triples, known answers and inputs, placed.

    If tables are sharded, triples and known answers are too. A process then keeps only the share of its devices.

    Args:
      graph: the graph.
      inputs: the encoder's inputs, placed.
      mapper: the devices.
      split: whether tables are sharded.
      bars: rules that exclude negatives.
    """
    known = make_known([graph.train], len(graph.entities), len(graph.relations), mapper, split=split, bars=bars)
    return TrainData(mapper.place(np.asarray(graph.train, np.int32), ROWS if split else WHOLE), known, inputs)


def make_known(
    parts: Sequence[np.ndarray],
    entities: int,
    relations: int,
    mapper: Mapper,
    *,
    split: bool = False,
    bars: tuple[Bar, ...] = (),
) -> KnownAnswers:
    """Make the index of known answers, placed.

    Args:
      parts: int ``[T, 3]`` each, the triples.
      entities: the number of entities N.
      relations: the number of relations R.
      mapper: the devices.
      split: whether tables are sharded.
      bars: rules that exclude negatives.
    """
    held = padded_size(entities, mapper.count) // mapper.count if split else entities
    own = mapper.own_shares if split else [0]
    facts = entity_facts(parts, entities, relations, own[0] * held, (own[-1] + 1) * held)
    hubs = hub_queries(facts, entities)
    if split:
        hubs = np.sort(all_rows(hubs))
    known = {device: index_known(facts, hubs, entities, relations, device * held, held) for device in own}
    if not split:
        return mapper.place(known[0]._replace(bars=bars), known_spec(False))
    # All devices' arrays must have the same length, also in other processes.
    longest = everyone([max(map(len, field)) for field in zip(*known.values(), strict=True)]).max(axis=0)

    def share(device: int) -> KnownAnswers:
        own = known[device]
        # Hubs are replicated, and not padded, because a step without hubs is cheaper.
        pairs: Any = zip(own[:-1], longest[:-1], strict=True)
        padded: list[Any] = [filled(rows, max(length, 1)) for rows, length in pairs]
        known_here = KnownAnswers(*padded)
        return known_here._replace(hub_entities=own.hub_entities, hub_relations=own.hub_relations, bars=bars)

    return mapper.place_shares(share, known_spec(True))
