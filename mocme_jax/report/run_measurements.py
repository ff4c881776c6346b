"""What the report measures on a run's best checkpoint: ranks, each entity's weights, how far probabilities hold.

Test was scored once, in training. Ranks are repeated here to show how they are spread, and chosen by nothing.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from mocme_jax.evaluation.metrics import modality_patterns
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.parallel.mesh import ROWS
from mocme_jax.report.finished_run import STRUCTURE
from mocme_jax.serving.calibration import judged
from mocme_jax.serving.completion import Served, batches, filled
from mocme_jax.serving.probability import Bins, in_bins
from mocme_jax.serving.run_loading import model_of
from mocme_jax.serving.trained_model import TrainedModel
from mocme_jax.training.best_model import Restored, restore_best
from mocme_jax.training.compilation_cache import use_compilation_cache
from mocme_jax.training.setup import builders


@dataclasses.dataclass(frozen=True)
class Weights:
    """Every entity's weights, as what is asked about.

    Attributes:
      modality: float64 ``[N, M]``, shares of the fusion that sum to 1; 0 where the entity lacks the modality.
      view: float64 ``[N, M, K]``, summing to 1 over K where the modality is present.
      present: bool ``[N, M]``, the structure first.
    """

    modality: np.ndarray
    view: np.ndarray
    present: np.ndarray


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the checkpoint of a run says beside its files.

    Attributes:
      model: the run's best model.
      parts: digests of names and triples, to tell whether two runs are of one graph.
      ranks: float64 ``[2T]``, filtered ranks of test, those that ask for tails first; None without test triples.
      modalities: M names, the structure first.
      patterns: what each entity carries, such as ``text+numeric``; ``structure`` for nothing beside it.
      weights: see ``Weights``.
      reliability: ``before`` and ``after`` the calibration, the top answers to questions of test (of dev, where there
        is no test, see ``judged_on``).
      judged_on: ``test`` or ``dev``.
    """

    model: TrainedModel
    parts: dict[str, str]
    ranks: np.ndarray | None
    modalities: tuple[str, ...]
    patterns: list[str]
    weights: Weights
    reliability: dict[str, Bins]
    judged_on: str


def measure(
    workdir: Path,
    *,
    data_dir: str | None = None,
    features_dir: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Measured:
    """Restores a run's best checkpoint on one device and measures; see ``restore_best`` for errors."""
    use_compilation_cache()
    restored = restore_best(workdir, data_dir=data_dir, features_dir=features_dir, alone=True, notify=notify)
    model = model_of(Path(workdir), restored, notify)
    graph = restored.dataset.graph
    split = "test" if len(graph.test) else "valid"
    probabilities, right = judged(model.served, model.calibration, graph.splits[split])
    _whole, parts = graph.fingerprints()
    return Measured(
        model,
        {name: digest for name, digest in parts.items() if not name.startswith("modality ")},
        test_ranks(model.served, restored),
        (STRUCTURE, *(modality.name for modality in graph.modalities)),
        [
            STRUCTURE if pattern == "none" else pattern
            for pattern in modality_patterns({m.name: m.present for m in graph.modalities}, len(graph.entities))
        ],
        entity_weights(model.served, len(graph.entities)),
        {name: in_bins(values, right) for name, values in probabilities.items()},
        "dev" if split == "valid" else split,
    )


def test_ranks(served: Served, restored: Restored) -> np.ndarray | None:
    """The ranks that training scored test by: float64 ``[2T]``, tails first, or None without test triples."""
    dataset = restored.dataset
    if not len(dataset.graph.test):
        return None
    evaluator = builders.build_evaluator(restored.config, restored.model, dataset, restored.mapper)
    entities, tables = len(dataset.graph.entities), served.tables
    rows = [np.asarray(table).reshape(-1, table.shape[-1])[:entities] for table in (tables.questions, tables.answers)]
    vectors = restored.mapper.place(EntityVectors(*rows), EntityVectors(ROWS, ROWS))
    return evaluator.ranks(restored.params.model, vectors, "test")


def entity_weights(served: Served, entities: int) -> Weights:
    """The weights that each of N entities is encoded with."""
    found = []
    for part, size in batches(entities):
        ids = filled(np.arange(part.start, part.stop, dtype=np.int32), size)
        carried = look_up(served.params.structure, served.inputs, ids, split=False)
        encoding = None  # TODO
        kept = jax.device_get((encoding.modality_weights, encoding.view_weights, encoding.present))
        found.append([array[: part.stop - part.start] for array in kept])
    modality, view, present = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    modality = np.where(present, modality, 0).astype(np.float64)
    view = np.where(present[..., None], view, 0).astype(np.float64)
    # Fused by a plain sum, every part weighs 1.
    modality /= np.maximum(modality.sum(axis=1, keepdims=True), 1e-30)
    view /= np.maximum(view.sum(axis=2, keepdims=True), 1e-30)
    return Weights(modality, view, present)


def weights_by_pattern(weights: Weights, patterns: list[str]) -> list[tuple[str, int, np.ndarray]]:
    """Pattern, number of entities, mean weights ``[M]``; the most frequent first."""
    names, place, counts = np.unique(np.asarray(patterns, object).astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(str(names[i]), int(counts[i]), weights.modality[place == i].mean(axis=0)) for i in order]


def weights_by_relation(weights: Weights, train: np.ndarray, relations: int) -> np.ndarray:
    """Mean weights ``[R, 2, M]`` of the heads and of the tails of each relation's training triples; NaN without any."""
    counts = np.bincount(train[:, 1], minlength=relations)
    sums = [
        [np.bincount(train[:, 1], column[train[:, end]], minlength=relations) for column in weights.modality.T]
        for end in (0, 2)
    ]
    with np.errstate(invalid="ignore"):
        return np.moveaxis(np.array(sums), 2, 0) / counts[:, None, None]
