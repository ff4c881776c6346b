"""What each modality is worth: ranks of test with one masked after the other, and the heat map of MRR lost and nats."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mocme_jax.evaluation.metrics import mean_and_margin
from mocme_jax.report.finished_run import STRUCTURE, Finished
from mocme_jax.serving.completion import Served
from mocme_jax.training.best_model import Restored
from mocme_jax.training.device_data import without
from mocme_jax.training.entity_encoding import make_encode_program
from mocme_jax.training.information import in_nats
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


MOST_RELATIONS = 20
_FAINTEST, _DEEPEST = 8, 45
"""Percent of colour in a cell that loses next to nothing, and in the one that loses most: text on both is legible."""


class Cell(NamedTuple):
    """One modality for one relation.

    Attributes:
      lost: MRR lost where it is masked; negative where that helps.
      margin: half the width of the 95% interval; None for one triple.
      nats: what it adds on dev, in words; None where that is not measured.
      shade: percent of colour, 0 where the interval holds 0.
    """

    lost: float
    margin: float | None
    nats: str | None
    shade: int = 0

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.margin is not None and abs(self.lost) > self.margin


class Line(NamedTuple):
    """A row of the heat map: ``name`` is None for all relations, ``triples`` are those of test that were ranked."""

    name: str | None
    triples: int
    cells: list[Cell]


def worth(run: Finished, masked: Masked, relations: Sequence[str], most: int = MOST_RELATIONS) -> list[Line]:
    """All relations together, then the most frequent of the sample, each with a cell for every modality.

    Args:
      masked: ranks with and without each modality.
      relations: names by id.
      most: relations that are shown.
    """
    found, counts = np.unique(masked.relations, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")][:most].tolist()
    added = run.information.get("relations", {})
    everything = np.ones(len(masked.relations), bool)
    rows = [(None, everything, run.information.get("modalities", {}))]
    rows += [(relations[own], masked.relations == own, added.get(relations[own], {})) for own in order]
    lines = [Line(name, int(chosen.sum()), _cells(masked, chosen, nats)) for name, chosen, nats in rows]
    deepest = max((abs(cell.lost) for line in lines for cell in line.cells if cell.is_sure), default=1.0)
    return [line._replace(cells=[_shaded(cell, deepest) for cell in line.cells]) for line in lines]


def _cells(masked: Masked, chosen: np.ndarray, added: Mapping[str, dict[str, Any]]) -> list[Cell]:
    rows = np.tile(chosen, 2)
    cells = []
    for name, ranks in masked.without.items():
        nats = in_nats(added[name]) if name in added else None
        cells.append(Cell(*mean_and_margin(1 / masked.whole[rows] - 1 / ranks[rows]), nats))
    return cells


def _shaded(cell: Cell, deepest: float) -> Cell:
    if not cell.is_sure:
        return cell
    return cell._replace(shade=round(_FAINTEST + (_DEEPEST - _FAINTEST) * abs(cell.lost) / deepest))
