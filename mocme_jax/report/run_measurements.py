"""What the report measures on a run's best checkpoint: ranks, the experts' weights, how far probabilities hold.

Test was scored once, in training. Ranks are repeated here to show how they are spread, and chosen by nothing.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from mocme_jax.data.graph.knowledge_graph import MODALITY_PART
from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.evaluation.metrics import modality_patterns
from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.report.finished_run import STRUCTURE, Finished
from mocme_jax.report.modality_worth import Masked, masked_ranks
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.calibration import judged
from mocme_jax.serving.completion import Served, encoded_vectors, in_batches
from mocme_jax.serving.known_facts import Facts
from mocme_jax.serving.probability import Bins, in_bins
from mocme_jax.serving.run_loading import load_checkpoint
from mocme_jax.serving.trained_model import TrainedModel
from mocme_jax.training.setup import builders


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the checkpoint of a run says beside its files.

    Attributes:
      run: its files.
      model: the run's best model.
      ranks: float64 ``[2T]``, filtered ranks of test, those that ask for tails first; None without test triples.
      masked: ranks of test without each modality; None without test triples, or features.
    """

    run: Finished
    model: TrainedModel
    ranks: np.ndarray | None
    masked: Masked | None

    @functools.cached_property
    def parts(self) -> dict[str, str]:
        """Digests of names and triples, to tell whether two runs are of one graph."""
        _whole, parts = self.model.graph.fingerprints()
        return {name: digest for name, digest in parts.items() if not name.startswith(MODALITY_PART)}

    @functools.cached_property
    def patterns(self) -> list[str]:
        """What each entity carries, such as ``text+numeric``; ``structure`` for nothing beside it."""
        graph = self.model.graph
        found = modality_patterns({m.name: m.present for m in graph.modalities}, len(graph.entities))
        return [STRUCTURE if pattern == "none" else pattern for pattern in found]

    @functools.cached_property
    def entity_shares(self) -> np.ndarray:
        """Each expert's share of the weights with which entities are asked about, without a relation.

        Float64 ``[N, H]``; rows sum to 1.
        """
        served = self.model.served

        def shares(ids: np.ndarray) -> jax.Array:
            carried = look_up(served.params.structure, served.inputs, ids, split=False)
            return programs.expert_shares(served.model, served.params.model, carried)

        found = in_batches(shares, np.arange(served.facts.num_entities, dtype=np.int32)).astype(np.float64)
        return found / found.sum(axis=1, keepdims=True)

    @functools.cached_property
    def relation_shares(self) -> np.ndarray:
        """Means of the shares over the training triples of each relation; see ``shares_by_relation``."""
        served = self.model.served
        of_relations = np.asarray(programs.relation_weights(served.model, served.params.model), np.float64)
        return shares_by_relation(self.entity_shares, of_relations, np.asarray(self.model.graph.train))

    @property
    def judged_on(self) -> str:
        """``test``, or ``dev`` where there is no test: the split whose top answers are judged."""
        return "test" if len(self.model.graph.test) else "dev"

    @functools.cached_property
    def judged(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The top answers to queries of ``judged_on``, see ``calibration.judged``; other known answers are left out."""
        triples = self.model.graph.test if self.judged_on == "test" else self.model.graph.valid
        return judged(self.model.served, self.model.calibration, triples)

    @property
    def first_probability(self) -> np.ndarray:
        """Float64 ``[2T]``, of the answer that comes first."""
        return self.judged[0]["after"]

    @property
    def first_is_right(self) -> np.ndarray:
        """Bool ``[2T]``."""
        return self.judged[1]

    @property
    def reliability(self) -> dict[str, Bins]:
        """``before`` and ``after`` the calibration, the top answers by their probabilities."""
        return {name: in_bins(values, self.first_is_right) for name, values in self.judged[0].items()}

    @property
    def asked(self) -> np.ndarray:
        """All test queries with their answers, int32 ``[2T, 3]``, in the order of the ranks."""
        return reciprocal(np.asarray(self.model.graph.test), len(self.model.relations))

    @functools.cached_property
    def before_test(self) -> Served:
        """The model with train and dev known, and test not: as it was when its test queries were asked."""
        served = self.model.served
        seen = {name: triples for name, triples in served.facts.splits.items() if name != "test"}
        facts = Facts(seen, served.facts.num_entities, served.facts.num_relations, served.facts.additions)
        return dataclasses.replace(served, facts=facts)

    def named(self, shares: np.ndarray) -> dict[str, float]:
        """Shares ``[H]`` by the names of the experts."""
        return dict(zip(self.run.experts, shares.tolist(), strict=True))

    def reads(self, expert: str) -> float:
        """The share of the entities that an expert has something to read of; all for the structure."""
        served, number = self.model.served, self.run.experts.index(expert)
        if not number:
            return 1.0
        columns = [1 + modality for modality in served.model.encoder.reads[number - 1]]
        return float(np.asarray(served.inputs.present)[:, columns].any(axis=1).mean())


def measure(run: Finished, **options: Any) -> Measured:
    """Restores a run's best checkpoint on one device and measures; see ``load`` for options and errors."""
    model, restored = load_checkpoint(run.workdir, **options)
    dataset, ranks, masked = restored.dataset, None, None
    if len(dataset.graph.test):
        # The ranks that training scored test by.
        evaluator = builders.build_evaluator(restored.config, restored.model, dataset, restored.mapper)
        ranks = evaluator.ranks(restored.params.model, encoded_vectors(model.served, restored.mapper), "test")
        masked = masked_ranks(restored, model.served, ranks) if model.modalities[1:] else None
    return Measured(run, model, ranks, masked)


def shares_by_pattern(shares: np.ndarray, patterns: list[str]) -> list[tuple[str, int, np.ndarray]]:
    """Pattern, number of entities, mean shares ``[H]``; the most frequent first."""
    names, place, counts = np.unique(np.asarray(patterns, object).astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(str(names[i]), int(counts[i]), shares[place == i].mean(axis=0)) for i in order]


def shares_by_relation(entity: np.ndarray, relation: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mean shares ``[R, 2, H]`` over a relation's triples: of heads, asked for tails, and of tails, asked for heads.

    The relation's own part of the weights is in them. NaN without triples.

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
