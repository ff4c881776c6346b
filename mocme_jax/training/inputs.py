"""A graph as the arrays that the compiled programs read."""

from __future__ import annotations

import numpy as np

from mocme_jax.data.graph import KnowledgeGraph
from mocme_jax.data.standardise import standardise
from mocme_jax.model.mocme import choose_panel
from mocme_jax.model.tables import Inputs, inputs_spec
from mocme_jax.objective.candidates import index_known
from mocme_jax.parallel.mapping import WHOLE, Mapper
from mocme_jax.training.state import TrainData


def make_inputs(graph: KnowledgeGraph, panel_size: int, seed: int, mapper: Mapper, *, split: bool = False) -> Inputs:
    """Standardised features, presence masks ``[N, M]`` (structure first, which all have) and the panel, placed."""
    modalities = [standardise(modality) for modality in graph.modalities]
    present = np.stack([np.ones(len(graph.entities), bool), *(m.present for m in modalities)], axis=1)
    panel = choose_panel(present, panel_size, seed)
    return mapper.place(Inputs(tuple(m.features for m in modalities), present, panel), inputs_spec(split))


def make_train_data(graph: KnowledgeGraph, inputs: Inputs, mapper: Mapper) -> TrainData:
    """Training triples and the known tails of every training query, placed, and the inputs."""
    known = index_known(graph.train, len(graph.entities), len(graph.relations))
    return TrainData(mapper.place(graph.train, WHOLE), mapper.place(known, WHOLE), inputs)
