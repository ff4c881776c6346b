"""What the report measures on a run's best checkpoint: ranks, the experts' weights, how far probabilities hold.

Test was scored once, in training. Ranks are repeated here to show how they are spread, and chosen by nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.knowledge_graph import MODALITY_PART
from mocme_jax.evaluation.metrics import modality_patterns
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.parallel.mesh import ROWS
from mocme_jax.report.finished_run import STRUCTURE
from mocme_jax.report.masked_modalities import Masked, masked_ranks
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.calibration import judged
from mocme_jax.serving.completion import Served, batches, filled
from mocme_jax.serving.known_facts import Facts
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.serving.probability import Bins, in_bins
from mocme_jax.serving.run_loading import lookups, model_of
from mocme_jax.serving.trained_model import TrainedModel
from mocme_jax.training.best_model import Restored, restore_best
from mocme_jax.training.logs.run_results import expert_names
from mocme_jax.training.setup import builders


@dataclasses.dataclass(frozen=True)
class Weights:
    """Each expert's share of the weights with which entities are asked about.

    Attributes:
      entity: float64 ``[N, H]``, of every entity, without a relation; rows sum to 1.
      relation: float64 ``[R, 2, H]``, means over a relation's training triples: of their heads, asked for tails, and of
        their tails, asked for heads; with the relation's own part of the weights. NaN without triples.
      reads: bool ``[N, H]``, whether an expert has something of the entity to read; True for the structure.
    """

    entity: np.ndarray
    relation: np.ndarray
    reads: np.ndarray


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the checkpoint of a run says beside its files.

    Attributes:
      model: the run's best model.
      parts: digests of names and triples, to tell whether two runs are of one graph.
      ranks: float64 ``[2T]``, filtered ranks of test, those that ask for tails first; None without test triples.
      modalities: M names, the structure first.
      experts: H names, the structure first.
      patterns: what each entity carries, such as ``text+numeric``; ``structure`` for nothing beside it.
      weights: see ``Weights``.
      masked: ranks of test without each modality; None without test triples, or features.
      first_probability: float64 ``[2T]``, of the answer to each query of ``judged_on`` that comes first, where other
        known answers are no candidates.
      first_is_right: bool ``[2T]``.
      reliability: ``before`` and ``after`` the calibration, the top answers to queries of test (of dev, where there
        is no test, see ``judged_on``).
      judged_on: ``test`` or ``dev``.
    """

    model: TrainedModel
    parts: dict[str, str]
    ranks: np.ndarray | None
    modalities: tuple[str, ...]
    experts: tuple[str, ...]
    patterns: list[str]
    weights: Weights
    masked: Masked | None
    first_probability: np.ndarray
    first_is_right: np.ndarray
    reliability: dict[str, Bins]
    judged_on: str

    @functools.cached_property
    def before_test(self) -> Served:
        """The model with train and dev known, and test not: as it was when its test queries were asked."""
        served = self.model.served
        seen = {name: triples for name, triples in served.facts.splits.items() if name != "test"}
        facts = Facts(seen, served.facts.num_entities, served.facts.num_relations, served.facts.additions)
        return dataclasses.replace(served, facts=facts)

    def named(self, shares: np.ndarray) -> dict[str, float]:
        """Shares ``[H]`` by the names of the experts."""
        return dict(zip(self.experts, shares.tolist(), strict=True))

    def reads(self, expert: str) -> float:
        """The share of the entities that an expert has something to read of."""
        return float(self.weights.reads[:, self.experts.index(expert)].mean())


def measure(
    workdir: Path,
    *,
    data_dir: str | None = None,
    features_dir: str | None = None,
    notify: Callable[[str], None] | None = None,
    check: Callable[[Lookup], None] = lambda entities: None,
) -> Measured:
    """Restores a run's best checkpoint on one device and measures; see ``restore_best`` for errors.

    ``check`` is given the entities before the model is read, and raises where one that is asked for is not there.
    """
    restored = restore_best(
        workdir,
        data_dir=data_dir,
        features_dir=features_dir,
        alone=True,
        notify=notify,
        check=lambda config, graph: check(lookups(config, graph)[0]),
    )
    model = model_of(Path(workdir), restored, notify)
    graph = restored.dataset.graph
    split = "test" if len(graph.test) else "valid"
    probabilities, right = judged(model.served, model.calibration, graph.splits[split])
    _whole, parts = graph.fingerprints()
    modalities = [modality.name for modality in graph.modalities]
    ranks = test_ranks(model.served, restored)
    return Measured(
        model,
        {name: digest for name, digest in parts.items() if not name.startswith(MODALITY_PART)},
        ranks,
        (STRUCTURE, *modalities),
        tuple(expert_names(modalities, model.served.model.encoder.experts)),
        [
            STRUCTURE if pattern == "none" else pattern
            for pattern in modality_patterns({m.name: m.present for m in graph.modalities}, len(graph.entities))
        ],
        weights_of(model.served, np.asarray(graph.train)),
        masked_ranks(restored, model.served, ranks) if modalities and ranks is not None else None,
        probabilities["after"],
        right,
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


def weights_of(served: Served, train: np.ndarray) -> Weights:
    """The shares of the experts, with means over the training triples int ``[T, 3]``."""
    entities = served.facts.num_entities
    shares = []
    for part, size in batches(entities):
        ids = filled(np.arange(part.start, part.stop, dtype=np.int32), size)
        carried = look_up(served.params.structure, served.inputs, ids, split=False)
        found = programs.expert_shares(served.model, served.params.model, carried)
        shares.append(np.asarray(found, np.float64)[: part.stop - part.start])
    entity = np.concatenate(shares)
    entity /= entity.sum(axis=1, keepdims=True)
    present = np.asarray(served.inputs.present)
    reads = [present[:, 1:][:, list(read)].any(axis=1) for read in served.model.encoder.reads]
    of_relations = np.asarray(programs.relation_weights(served.model, served.params.model), np.float64)
    relation = shares_by_relation(entity, of_relations, train)
    return Weights(entity, relation, np.stack([np.ones(entities, bool), *reads], axis=1))


def shares_by_pattern(shares: np.ndarray, patterns: list[str]) -> list[tuple[str, int, np.ndarray]]:
    """Pattern, number of entities, mean shares ``[H]``; the most frequent first."""
    names, place, counts = np.unique(np.asarray(patterns, object).astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(str(names[i]), int(counts[i]), shares[place == i].mean(axis=0)) for i in order]


def shares_by_relation(entity: np.ndarray, relation: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mean shares ``[R, 2, H]`` of heads, asked for tails, and of tails, asked for heads; NaN without triples.

    Args:
      entity: ``[N, H]``, shares of entities without a relation.
      relation: ``[2R, H]``, what relations multiply the weights by.
      train: int ``[T, 3]``.
    """
    count = len(relation) // 2
    found = np.full((count, 2, entity.shape[1]), np.nan)
    rows = np.argsort(train[:, 1], kind="stable")
    starts = np.searchsorted(train[rows, 1], np.arange(count + 1))
    for own in range(count):
        triples = train[rows[starts[own] : starts[own + 1]]]
        for place, (end, asked) in enumerate(((0, own), (2, own + count))):
            if len(triples):
                weights = entity[triples[:, end]] * relation[asked]
                found[own, place] = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    return found
