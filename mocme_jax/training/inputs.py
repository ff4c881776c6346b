"""A graph as the arrays that the compiled programs read."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.data.graph import KnowledgeGraph
from mocme_jax.data.standardise import standardise
from mocme_jax.model.encoder import Inputs
from mocme_jax.model.mocme import choose_panel
from mocme_jax.objective.candidates import index_known
from mocme_jax.training.program import TrainData


def make_inputs(graph: KnowledgeGraph, panel_size: int, seed: int) -> Inputs:
    """Standardised features, presence masks ``[N, M]`` (structure first, which all have) and the panel."""
    modalities = [standardise(modality) for modality in graph.modalities]
    present = np.stack([np.ones(len(graph.entities), bool), *(m.present for m in modalities)], axis=1)
    panel = choose_panel(present, panel_size, seed)
    return Inputs(tuple(jnp.asarray(m.features) for m in modalities), jnp.asarray(present), jnp.asarray(panel))


def make_train_data(graph: KnowledgeGraph, inputs: Inputs) -> TrainData:
    """Training triples and the known tails of every training query, on the device."""
    known = index_known(graph.train, len(graph.entities), len(graph.relations))
    return TrainData(jnp.asarray(graph.train), jax.tree.map(jnp.asarray, known), inputs)
