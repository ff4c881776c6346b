"""The ranks of test where one modality after the other is masked for all entities."""

import dataclasses
from typing import NamedTuple

import numpy as np

from mocme_jax.report.finished_run import STRUCTURE
from mocme_jax.serving.completion import Served
from mocme_jax.training.best_model import Restored
from mocme_jax.training.device_data import without
from mocme_jax.training.entity_encoding import make_encode_program
from mocme_jax.training.setup import builders

MOST_TRIPLES = 1000
"""Test triples that are ranked again without each modality; of a larger test, a sample drawn with a fixed seed."""


class Masked(NamedTuple):
    """Ranks of a sample of S test triples, float64 ``[2S]`` each, tails first.

    Attributes:
      relations: int ``[S]``.
      whole: with everything.
      without: by the name of the modality that is masked.
    """

    relations: np.ndarray
    whole: np.ndarray
    without: dict[str, np.ndarray]


def masked_ranks(restored: Restored, served: Served, ranks: np.ndarray, most: int = MOST_TRIPLES) -> Masked:
    """Ranks a sample of test once for each modality, as if no entity had it.

    Args:
      restored: on one device, see ``restore_best``.
      served: the same model; its structure table is the one that is evaluated.
      ranks: of all of test, ``[2T]``.
      most: triples in the sample.
    """
    graph, mapper = restored.dataset.graph, restored.mapper
    drawn = np.random.default_rng(0).permutation(len(graph.test))[:most]
    rows = np.sort(drawn)
    sample = np.asarray(graph.test)[rows]
    dataset = dataclasses.replace(restored.dataset, graph=graph.replace(test=sample))
    evaluator = builders.build_evaluator(restored.config, restored.model, dataset, mapper)
    encode = make_encode_program(restored.model, entities=len(graph.entities), mapper=mapper)
    found = {}
    for number, name in enumerate([STRUCTURE, *(modality.name for modality in graph.modalities)]):
        vectors, _ = encode(served.params, without(served.inputs, graph, number, mapper))
        found[name] = evaluator.ranks(served.params.model, vectors, "test")
    return Masked(sample[:, 1], ranks.reshape(2, -1)[:, rows].ravel(), found)
